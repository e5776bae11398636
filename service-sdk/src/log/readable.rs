//! A record as a line people read, for standard error.

use std::fmt::Write;

use watchdog_protocol::record::{Event, Field, Value};

/// The line of an event. Without its time, which the watchdog adds to what it captures. Control characters are written
/// as escapes: one record is one line, and commands no terminal.
pub(super) fn line(event: &Event) -> String {
    let mut out = format!("{:>5} ", event.level.as_str());
    for part in [&event.scope, &event.target] {
        if !part.is_empty() {
            push_escaped(&mut out, part);
            out.push_str(": ");
        }
    }
    push_escaped(&mut out, &event.message);
    for Field { key, value } in &event.fields {
        if !out.ends_with(' ') {
            out.push(' ');
        }
        push_escaped(&mut out, key);
        out.push('=');
        match value {
            Value::Text(text) if is_plain(text) => out.push_str(text),
            Value::Text(text) => show(&mut out, format_args!("{text:?}")),
            Value::Signed(number) => show(&mut out, format_args!("{number}")),
            Value::Unsigned(number) => show(&mut out, format_args!("{number}")),
            Value::Float(number) => show(&mut out, format_args!("{number}")),
            Value::Bool(yes) => show(&mut out, format_args!("{yes}")),
        }
    }
    out.push('\n');
    out
}

fn show(out: &mut String, value: std::fmt::Arguments<'_>) {
    out.write_fmt(value).expect("writing to a string does not fail");
}

/// Whether it is seen where it ends.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"')
}

fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchdog_protocol::record::Level;

    use super::*;

    fn event(message: &str, fields: Vec<(&str, Value)>) -> Event {
        let fields = fields.into_iter().map(|(key, value)| Field { key: key.to_owned(), value });
        Event {
            at: 0,
            level: Level::Warn,
            target: "counter::add".to_owned(),
            message: message.to_owned(),
            fields: fields.collect(),
            within: None,
            scope: "serve:add".to_owned(),
        }
    }

    #[test]
    fn it_says_how_grave_where_what_and_what_is_known() {
        let fields = vec![
            ("peer", Value::Text("bumper".to_owned())),
            ("why", Value::Text("too \"late\"".to_owned())),
            ("none", Value::Text(String::new())),
            ("n", Value::Signed(-3)),
            ("share", Value::Float(0.5)),
            ("again", Value::Bool(true)),
        ];
        assert_eq!(
            line(&event("not added", fields)),
            " WARN serve:add: counter::add: not added peer=bumper why=\"too \\\"late\\\"\" none=\"\" n=-3 \
             share=0.5 again=true\n"
        );
        assert_eq!(line(&event("", vec![("n", Value::Unsigned(1))])), " WARN serve:add: counter::add: n=1\n");
    }

    proptest! {
        #[test]
        fn one_record_is_one_line_and_commands_no_terminal(message: String, key: String, value: String) {
            let line = line(&event(&message, vec![(&key, Value::Text(value))]));
            let (line, end) = line.split_at(line.len() - 1);
            prop_assert_eq!(end, "\n");
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
        }
    }
}
