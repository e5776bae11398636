//! `watchdog send`.

use std::time::Duration;

use serde::Serialize;
use watchdog_protocol::layout::{Asks, Inbox, Message};
use watchdog_protocol::{Manifest, ServiceName};
use watchdog_query::Sent;

use super::changed::done;
use super::console::{Console, Format};
use super::figures::parse_span;
use super::given::Given;
use super::look::harmless;
use super::report::CliError;

/// Send a message to a service, as JSON, and print its answer.
///
/// The message waits in a lane of its own, whose sender is `operator`, as those of services do: also while the service is
/// down. It is written as serde writes an enum: `{"Add": {"n": 1}}`; the name alone where it holds nothing.
///
/// 65: it is no message of the service, which says where. 70: the service died with it in hand, or the watchdog's core
/// while it sent it; whether it was done is not known. 75: no answer in time. 1: the service let go of it unanswered.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog send counter --schema\n  watchdog send counter '{\"Add\": {\"n\": 1}}'\n  watchdog send counter Total"
)]
pub(super) struct Arguments {
    /// To whom.
    service: ServiceName,
    /// The message; `@PATH` to read it from a file, `-` from standard input.
    #[arg(required_unless_present = "schema")]
    message: Option<Given>,
    /// Come back when the message is in the lane, and wait for no answer.
    #[arg(long)]
    tell: bool,
    /// Wait for the answer at most so long (500ms, 10s, 2m); a service that gets to it later skips it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_span, conflicts_with = "tell")]
    timeout: Duration,
    /// Show what it takes, with an example of each message.
    #[arg(long, conflicts_with_all = ["message", "tell", "timeout"])]
    schema: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let service = &self.service;
        let inbox = inbox_of(service, console).await?;
        let Some(message) = self.message else { return schema(service, &inbox, console) };
        let text = json_of(message.read()?);
        let no_message = |source| CliError::NoMessage { service: service.clone(), source };
        let encoded = inbox.encode(&text).map_err(no_message)?;
        let name = encoded.name.clone();
        let wait = (!self.tell).then_some(self.timeout);
        match console.ask(async |query| query.send(service, encoded, wait).await).await? {
            Sent::Queued { waits: None } => done(&format!("{service}: {name} sent"), console),
            Sent::Queued { waits: Some(why) } => done(&format!("{service}: {name} sent; {why}"), console),
            Sent::Answered(answer) => console.json_text(&read(service, &inbox, &name, &answer)?),
        }
    }
}

/// Sends a message, as JSON, to a service that answers it so soon, and gives the answer as JSON.
pub(super) async fn answer(
    service: &ServiceName,
    message: &str,
    patience: Duration,
    console: &Console,
) -> Result<String, CliError> {
    let inbox = inbox_of(service, console).await?;
    let no_message = |source| CliError::NoMessage { service: service.clone(), source };
    let encoded = inbox.encode(message).map_err(no_message)?;
    let name = encoded.name.clone();
    match console.ask(async |query| query.send(service, encoded, Some(patience)).await).await? {
        Sent::Queued { .. } => unreachable!("it was asked to wait for the answer"),
        Sent::Answered(answer) => read(service, &inbox, &name, &answer),
    }
}

/// An answer as JSON.
fn read(service: &ServiceName, inbox: &Inbox, name: &str, answer: &[u8]) -> Result<String, CliError> {
    let message = inbox.named(name).and_then(Result::ok).expect("it was written by its layout");
    let no_such = |source| CliError::NoSuchAnswer { service: service.clone(), name: name.to_owned(), source };
    message.decode_reply(answer).map_err(no_such)
}

/// What a service told the watchdog of its inbox.
pub(super) async fn inbox_of(service: &ServiceName, console: &Console) -> Result<Inbox, CliError> {
    let text = console.ask(async |query| query.manifest(service).await).await?;
    let text = text.ok_or_else(|| CliError::NoInbox { service: service.clone() })?;
    let manifest = Manifest::parse(text.as_bytes()).map_err(CliError::Manifest)?;
    Ok(Inbox::of(&manifest))
}

/// The message as JSON. A word alone, which no JSON is, is the name of one that holds nothing.
fn json_of(text: String) -> String {
    let word = text.trim();
    let is_name = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { format!("\"{word}\"") } else { text }
}

/// A message as it is listed.
#[derive(Serialize)]
struct Listed<'m> {
    name: &'m str,
    /// As Rust writes it.
    signature: Option<String>,
    /// `tell`, `ask` or `ask-until-answered`.
    kind: Option<&'static str>,
    example: Option<String>,
    /// Why nothing of this is known.
    unknown: Option<String>,
}

fn listed(inbox: &Inbox) -> Vec<Listed<'_>> {
    let known = |message: &Message| match message.reply {
        None => "tell",
        Some((Asks::Once, _)) => "ask",
        Some((Asks::UntilAnswered, _)) => "ask-until-answered",
    };
    let listed = |(name, message)| match message {
        Ok(message) => Listed {
            name,
            signature: Some(ToString::to_string(message)),
            kind: Some(known(message)),
            example: Some(message.example()),
            unknown: None,
        },
        Err(none) => Listed {
            name,
            signature: None,
            kind: None,
            example: None,
            unknown: Some(ToString::to_string(none)),
        },
    };
    inbox.messages().map(listed).collect()
}

fn schema(service: &ServiceName, inbox: &Inbox, console: &Console) -> Result<(), CliError> {
    match console.format {
        Format::Json => console.json(&listed(inbox)),
        Format::Text => console.print(&text(service, &listed(inbox))),
    }
}

fn text(service: &ServiceName, messages: &[Listed<'_>]) -> String {
    if messages.is_empty() {
        return format!("{service} takes no messages\n");
    }
    let mut text = String::new();
    for Listed { name, signature, kind, example, unknown } in messages {
        let (Some(signature), Some(kind), Some(example)) = (signature, kind, example) else {
            let why = unknown.as_deref().unwrap_or_default();
            text += &format!("{}: not known, {}\n", harmless(name), harmless(why));
            continue;
        };
        let kind = match *kind {
            "tell" => "told",
            "ask" => "asked",
            _ => "asked, also through restarts of the service",
        };
        // For a shell: what is between single quotes is as it is.
        let example = if *example == format!("\"{name}\"") {
            (*name).to_owned()
        } else {
            example.replace('\'', "'\\''")
        };
        let example = if example.starts_with('{') { format!("'{example}'") } else { example };
        text +=
            &format!("{}: {kind}\n  watchdog send {service} {}\n", harmless(signature), harmless(&example));
    }
    text
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::layout::Unsent;
    use watchdog_protocol::manifest::{Contract, MessageShape, fnv1a};

    use super::*;

    fn inbox() -> Inbox {
        let texts = [
            ("Add", "n:u32,note:?string,"),
            ("Total", "->u64"),
            ("Place", "0:f32,1:f32,=>bool"),
            ("Big", "x:u8,"),
        ];
        let shape =
            |(name, text): (&str, &str)| MessageShape { name: name.into(), hash: fnv1a(text.as_bytes()) };
        let contract = Contract(texts.map(shape).to_vec());
        let mut layouts = texts.map(|(_, text)| Some(text.to_owned())).to_vec();
        layouts[3] = None;
        Inbox::of(&Manifest { format: 1, settings: None, state: None, contract, layouts })
    }

    #[test]
    fn what_a_service_takes_is_listed_with_a_line_to_try() {
        insta::assert_snapshot!(text(&"counter".parse().unwrap(), &listed(&inbox())), @r#"
        Add { n: u32, note: Option<String> }: told
          watchdog send counter '{"Add": {"n": 1, "note": "text"}}'
        Total -> u64: asked
          watchdog send counter Total
        Place(f32, f32) -> bool: asked, also through restarts of the service
          watchdog send counter '{"Place": [1.5, 1.5]}'
        Big: not known, what lies in it takes more text than is told: 65536 bytes a message, 262144 in all
        "#);
        assert_eq!(text(&"mute".parse().unwrap(), &[]), "mute takes no messages\n");
    }

    #[test]
    fn a_word_alone_is_the_name_of_a_message() {
        let json_of = |text: &str| json_of(text.to_owned());
        assert_eq!(json_of("Total"), "\"Total\"");
        assert_eq!(json_of("\"Total\""), "\"Total\"");
        assert_eq!(json_of("{\"Add\": 1}"), "{\"Add\": 1}");
        assert_eq!(json_of("true"), "true");
    }

    #[test]
    fn what_is_no_message_is_told_with_a_hint() {
        let told = |json: &str| {
            let source: Unsent = inbox().encode(json).unwrap_err();
            let error = CliError::NoMessage { service: "counter".parse().unwrap(), source };
            assert_eq!(error.exit(), super::super::Exit::Data);
            error.text(&super::super::look::Look { color: false, width: None })
        };
        let all =
            [r#"{"Ad": {"n": 1}}"#, r#"{"Add": {"m": 1}}"#, r#"{"Add": {"n": -1}}"#, r#"{"Big": {"x": 1}}"#];
        insta::assert_snapshot!(all.map(told).join("\n"), @"
        error: nothing was sent, this is no message of `counter`: there is no message `Ad`
          hint: did you mean `Add`?
        error: nothing was sent, this is no message of `counter`: Add: there is no field `m`
          hint: watchdog send counter --schema shows what it takes
        error: nothing was sent, this is no message of `counter`: Add.n: -1, expected an integer 0 to 4294967295
          hint: watchdog send counter --schema shows what it takes
        error: nothing was sent, this is no message of `counter`: `Big` can't be written: what lies in it takes more text than is told: 65536 bytes a message, 262144 in all
          hint: watchdog send counter --schema shows what it takes
        ");
    }
}
