//! `watchdog set`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::control::Change;

use super::console::Console;
use super::given::Given;
use super::report::CliError;
use super::verdict::{self, Terms};
use crate::config::SettingPath;
use crate::config::schema::Schema;
use crate::config::secret_file::without_line_end;

/// Change settings of a service, all or none, and wait for its verdict.
///
/// The values are checked before anything changes, and outlive every restart. A service that is down takes them
/// when it starts.
///
/// A value may be read from a file, KEY=@FILE, or from standard input, KEY=-; a line end at its end is not part of it.
/// That is the way for a secret: others see the command line of every process. A text that begins with `@`, or is
/// `-`, is written as JSON: 'word="@home"'.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog set counter step=10 filter.level=debug\n  watchdog set logging 'redact=[\"key=[a-z]+\"]' 'outputs.screen={ kind = \"console\" }'\n  watchdog set counter step=10 --if-revision 4\n  pass show mail | watchdog set mailer password=- certificate=@/etc/ssl/mail.pem"
)]
pub(super) struct Arguments {
    /// Whose; the name of all instances changes them one after the other.
    service: ServiceName,
    /// A path of the settings and its new value: JSON, or as in watchdog.toml, or plain text where the setting is a
    /// text; or where to read it.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_change)]
    changes: Vec<Typed>,
    #[command(flatten)]
    terms: Terms,
}

/// One change as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Typed {
    path: String,
    value: Given,
}

/// One with its value.
struct Read {
    path: String,
    text: String,
    /// From a file or standard input.
    is_raw: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let Self { service, changes, terms } = self;
        let mut from_input = changes.iter().filter(|change| change.value == Given::Input);
        if let (Some(first), Some(second)) = (from_input.next(), from_input.next()) {
            return Err(CliError::InputTwice { first: first.path.clone(), second: second.path.clone() });
        }
        let changes: Vec<_> = changes.into_iter().map(Typed::read).collect::<Result<_, _>>()?;
        for (at, service) in verdict::whose(&service, console).await?.into_iter().enumerate() {
            let manifest = console.ask(async |query| query.manifest(&service).await).await?;
            let schema = manifest.map_or_else(Schema::default, |text| Schema::of_text(&text));
            if at == 0 {
                warn_of_shown_secrets(&service, &changes, &schema, console);
            }
            let secrets: Vec<_> = changes.iter().filter(|change| change.holds_secret(&schema)).collect();
            let secrets: Vec<_> = secrets.iter().map(|change| change.path.as_str()).collect();
            let changes = changes.iter().map(|change| change.on_the_wire(&schema)).collect();
            let ask = console
                .ask(async |query| query.set(&service, changes, terms.if_revision(), terms.wait()).await);
            verdict::show(&service, ask.await?, &secrets, console)?;
        }
        Ok(())
    }
}

fn warn_of_shown_secrets(service: &ServiceName, changes: &[Read], schema: &Schema, console: &Console) {
    for Read { path, .. } in changes.iter().filter(|change| !change.is_raw && change.holds_secret(schema)) {
        console.warn(&format!(
            "`{path}` is secret, and others see the command line of every process\n  \
             hint: watchdog set {service} {path}=@FILE, or {path}=- for standard input"
        ));
    }
}

impl Typed {
    fn read(self) -> Result<Read, CliError> {
        let Self { path, value } = self;
        let is_raw = !matches!(value, Given::Here(_));
        let mut text = value.read()?;
        if is_raw {
            text.truncate(without_line_end(&text).len());
        }
        Ok(Read { path, text, is_raw })
    }
}

impl Read {
    fn holds_secret(&self, schema: &Schema) -> bool {
        schema.holds_secret(self.path.split('.'))
    }

    /// What was read is the text itself where the setting is a text: a password may look like JSON.
    fn on_the_wire(&self, schema: &Schema) -> Change {
        let Self { path, text, is_raw } = self;
        let is_text = |path: SettingPath| schema.takes_text(&path);
        let value = match *is_raw && path.parse().is_ok_and(is_text) {
            true => serde_json::Value::from(text.as_str()).to_string(),
            false => text.clone(),
        };
        Change { path: path.clone(), value: Some(value) }
    }
}

fn parse_change(text: &str) -> Result<Typed, String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => {
            let Ok(value) = value.parse();
            Ok(Typed { path: path.to_owned(), value })
        }
        _ => Err("expected KEY=VALUE: step=10".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_split_at_its_first_equals_sign() {
        let typed = |path: &str, value| Ok(Typed { path: path.into(), value });
        assert_eq!(parse_change("filter.level=a=b"), typed("filter.level", Given::Here("a=b".into())));
        assert_eq!(parse_change("word="), typed("word", Given::Here(String::new())));
        assert_eq!(parse_change("word=@a=b"), typed("word", Given::File("a=b".into())));
        assert_eq!(parse_change("word=-"), typed("word", Given::Input));
        assert!(parse_change("word").is_err() && parse_change("=1").is_err());
    }

    #[test]
    fn what_was_read_is_a_text_where_one_is_wanted_and_else_what_it_would_be_if_it_was_typed() {
        let schema = Schema::compile(
            r#"{"type":"object","properties":{"word":{"type":["string","null"]},"step":{"type":"integer"}}}"#,
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let read = |path: &str, content: &str| {
            let file = folder.path().join("value");
            std::fs::write(&file, content).unwrap();
            let read = Typed { path: path.into(), value: Given::File(file) }.read().unwrap();
            read.on_the_wire(&schema).value.unwrap()
        };
        assert_eq!(read("word", "null\n"), r#""null""#);
        assert_eq!(read("word", "\"quoted\"\r\n"), r#""\"quoted\"""#);
        assert_eq!(read("word", "two\n\n"), r#""two\n""#);
        assert_eq!(read("step", "10\n"), "10");
        assert_eq!(read("unknown", "{}"), "{}");
        let typed = parse_change("word=null").unwrap().read().unwrap();
        assert_eq!(typed.on_the_wire(&schema).value.unwrap(), "null");
    }
}
