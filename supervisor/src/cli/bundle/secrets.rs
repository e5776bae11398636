//! What must not leave the machine in a bundle.

use serde_json::Value;

/// In place of a value.
const LEFT_OUT: &str = "(left out: it looks secret)";

/// A key with one of these in it names a secret more often than not. `MONKEY_COUNT` is lost too; a password that got
/// out is worse.
const SECRET: [&str; 10] =
    ["pass", "pwd", "secret", "token", "key", "credential", "auth", "private", "cookie", "dsn"];

/// Replaces the values that look secret: by their key, or as an address with a password in it. Gives their paths.
pub(super) fn leave_out(value: &mut Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk(value, "", &mut paths);
    paths
}

fn walk(value: &mut Value, path: &str, paths: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let path = below(name);
                if is_secret(name) && !value.is_object() {
                    *value = LEFT_OUT.into();
                    paths.push(path);
                } else {
                    walk(value, &path, paths);
                }
            }
        }
        Value::Array(values) => {
            for (value, at) in values.iter_mut().zip(0..) {
                walk(value, &below(&at.to_string()), paths);
            }
        }
        Value::String(text) if holds_password(text) => {
            *text = LEFT_OUT.into();
            paths.push(path.to_owned());
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host`.
fn holds_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_look_secret_are_left_out_and_named() {
        let mut value = json!({
            "exec": ["run", "--db=postgres://me:hush@db/shop", "http://db:8080/a@b"],
            "env": { "MODE": "fast", "API_KEY": "k", "DbPassword": "p", "URL": "https://me@host/" },
            "settings": { "auth": { "realm": "shop", "tokens": ["a", "b"] }, "step": 3 },
        });
        assert_eq!(
            leave_out(&mut value),
            ["exec.1", "env.API_KEY", "env.DbPassword", "settings.auth.tokens"]
        );
        assert_eq!(
            value,
            json!({
                "exec": ["run", LEFT_OUT, "http://db:8080/a@b"],
                "env": { "MODE": "fast", "API_KEY": LEFT_OUT, "DbPassword": LEFT_OUT, "URL": "https://me@host/" },
                "settings": { "auth": { "realm": "shop", "tokens": LEFT_OUT }, "step": 3 },
            })
        );
    }
}
