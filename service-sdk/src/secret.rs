//! [`Secret`]: a setting that is never shown.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use watchdog_protocol::manifest::SECRET_KEYWORD;
use zeroize::Zeroize;

/// A settings value that nobody is shown: a password, a token, a key.
///
/// ```
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct MailSettings {
///     user: String,
///     password: watchdog_service::Secret<String>,
/// }
/// # let settings: MailSettings = serde_json::from_str(r#"{ "user": "me", "password": "pw" }"#)?;
/// assert_eq!(format!("{:?}", settings.password), "(secret)");
/// assert_eq!(settings.password.expose(), "pw");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// It may stand anywhere in a settings type: in a table, an option, a list, a map, a variant. The watchdog knows it by
/// the type's schema, and says `(secret)` in its place wherever settings are shown, also in what it says against a
/// value that does not fit. How an operator gives one is in `watchdog set --help`.
///
/// It is overwritten when it is dropped. That is all that is promised of memory: copies of it were in the buffers it
/// came through, in the watchdog, and in whatever reads [`expose`](Self::expose). What a service itself logs, prints,
/// saves or says when it refuses is its own affair.
///
/// It can't be printed but for its `Debug`, nor be written by serde, so that it gets into no text, message or state
/// unseen:
///
/// ```compile_fail
/// let password = watchdog_service::Secret::from("pw".to_owned());
/// let header = format!("Authorization: {password}");
/// ```
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// The value.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<'de, T: Zeroize + Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // The error's own text quotes the value.
        let hidden = |_| serde::de::Error::custom("a secret that is not what the settings type asks for");
        T::deserialize(from).map(Self).map_err(hidden)
    }
}

impl<T: Zeroize + JsonSchema> JsonSchema for Secret<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Secret_{}", T::schema_name()).into()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("watchdog_service::Secret<{}>", T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<T>();
        schema.insert("writeOnly".to_owned(), true.into());
        schema.insert(SECRET_KEYWORD.to_owned(), true.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::settings::parse;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read by serde and schemars only")]
    struct Everywhere {
        plain: Secret<String>,
        /// A port nobody is to know.
        #[schemars(range(min = 1))]
        number: Secret<u16>,
        #[serde(default)]
        maybe: Option<Secret<String>>,
        list: Vec<Secret<String>>,
        map: BTreeMap<String, Secret<String>>,
        ports: BTreeMap<u16, Secret<String>>,
        whole: Secret<Pair>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "as above")]
    struct Around {
        inner: Inner,
        auth: Auth,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "as above")]
    struct Inner {
        password: Secret<String>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "as above")]
    enum Auth {
        Nobody,
        Token(Secret<String>),
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    struct Pair {
        user: String,
        password: String,
    }

    impl Zeroize for Pair {
        fn zeroize(&mut self) {
            self.user.zeroize();
            self.password.zeroize();
        }
    }

    fn everywhere() -> Value {
        json!({
            "plain": "canary-1", "number": 7, "maybe": "canary-2", "list": ["canary-3"],
            "map": { "a": "canary-4" }, "ports": { "80": "canary-7" }, "whole": { "user": "canary-5", "password": "canary-6" },
        })
    }

    #[test]
    fn a_secret_is_read_wherever_it_stands_and_its_debug_does_not_show_it() {
        let read: Everywhere = parse(everywhere().to_string().as_bytes()).unwrap();
        assert_eq!(read.list[0].expose(), "canary-3");
        assert_eq!(read.whole.expose().password, "canary-6");
        let shown = format!("{read:?} {read:#?}");
        assert!(shown.contains("(secret)") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn what_is_said_against_a_wrong_one_does_not_quote_it() {
        for (key, wrong) in [
            ("plain", json!([735])),
            ("number", json!("735")),
            ("maybe", json!({ "735": 735 })),
            ("list", json!([735])),
            ("map", json!({ "a": 735 })),
            ("ports", json!({ "80": 735 })),
            ("whole", json!("735")),
        ] {
            let mut values = everywhere();
            values[key] = wrong;
            let error = parse::<Everywhere>(values.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}")) && !error.contains("735"), "{error}");
        }
    }

    #[test]
    fn nor_does_what_is_said_against_one_that_stands_where_a_table_or_variant_around_it_belongs() {
        let wrong = |values: Value| parse::<Around>(values.to_string().as_bytes()).unwrap_err().to_string();
        assert_eq!(wrong(json!({ "inner": "canary" })), "`inner`: expected struct Inner");
        let inner = json!({ "password": "" });
        assert_eq!(
            wrong(json!({ "inner": inner, "auth": "canary" })),
            "`auth`: expected `Nobody` or `Token`"
        );
        assert_eq!(wrong(json!({ "inner": inner })), "the settings: missing field `auth`");
    }

    /// No default is among them: a manifest that had one would show it.
    #[test]
    fn the_schema_marks_it_in_each_place() {
        let schema = schemars::schema_for!(Everywhere);
        for (at, others) in [
            ("/properties/plain", json!({ "type": "string" })),
            (
                "/properties/number",
                json!({ "type": "integer", "format": "uint16", "minimum": 1, "maximum": 65535,
                        "description": "A port nobody is to know." }),
            ),
            ("/properties/maybe", json!({ "type": ["string", "null"] })),
            ("/properties/list/items", json!({ "type": "string" })),
            ("/properties/map/additionalProperties", json!({ "type": "string" })),
            ("/properties/ports/patternProperties/^\\d+$", json!({ "type": "string" })),
            ("/properties/whole", json!({ "$ref": "#/$defs/Pair" })),
        ] {
            let mut found = schema.pointer(at).unwrap().clone();
            let marks =
                ["writeOnly", SECRET_KEYWORD].map(|mark| found.as_object_mut().unwrap().shift_remove(mark));
            assert_eq!(marks, [Some(json!(true)), Some(json!(true))], "{at}");
            assert_eq!(found, others, "{at}");
        }
    }

    #[test]
    fn it_is_overwritten_when_it_is_dropped() {
        struct Seen<'s>(&'s std::cell::Cell<bool>);
        impl Zeroize for Seen<'_> {
            fn zeroize(&mut self) {
                self.0.set(true);
            }
        }
        let seen = std::cell::Cell::new(false);
        drop(Secret::from(Seen(&seen)));
        assert!(seen.get());
    }
}
