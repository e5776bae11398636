//! `watchdog dead`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::value::RawValue;
use watchdog_protocol::dead::{DeadLetter, WholeDeadLetter};
use watchdog_protocol::layout::Inbox;
use watchdog_protocol::{MessageId, ServiceName};

use super::changed::done;
use super::console::{Console, Format};
use super::figures::{size, time};
use super::look::{Look, harmless, harmless_json};
use super::report::CliError;
use super::send::inbox_of;
use super::table::{Align, Cell, Column, Rank, Table};

/// Look at dead letters, put them back, or drop them.
///
/// A message that three processes of its receiver died with in hand, one after the other, is taken out of its lane and
/// kept here, so that the service goes on with what is behind it. Ends by an operator, the watchdog, a dependency or
/// settings do not count. A service keeps 256 of them and 64 MiB at most; beyond that the next one stays in its lane.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog dead ls\n  watchdog dead retry counter --all")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List them: which message, from whom, and why the last process ended.
    #[command(after_help = "Example:\n  watchdog dead ls counter")]
    Ls {
        /// Names of services; all when there is none.
        #[arg(value_name = "SERVICE")]
        services: Vec<ServiceName>,
    },
    /// Show one with its deaths and what it says: as JSON, by what its receiver takes now, or as bytes where that is
    /// something else.
    #[command(after_help = "Example:\n  watchdog dead show counter 5f0c1a2b3c4d5e6f-12")]
    Show {
        /// Whose.
        service: ServiceName,
        /// Which, as `dead ls` names it.
        id: MessageId,
    },
    /// Put them back into their lanes, behind what is queued: each as a message of its old sender, marked as redelivered.
    ///
    /// It stops at the first that can't be put back, which stays as it is. Nobody waits for the answer to an ask.
    #[command(after_help = "Example:\n  watchdog dead retry counter 5f0c1a2b3c4d5e6f-12")]
    Retry(Which),
    /// Take them away for good.
    #[command(after_help = "Example:\n  watchdog dead drop counter --all")]
    Drop(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Whose.
    service: ServiceName,
    /// Which, as `dead ls` names them.
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<MessageId>,
    /// All of the service.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        match self.what {
            What::Ls { services } => {
                let letters = console.ask(async |query| query.dead_letters(&services).await).await?;
                match console.format {
                    Format::Json => console.json(&letters),
                    Format::Text => console.print(&list(&letters, &console.look)),
                }
            }
            What::Show { service, id } => {
                let whole = console.ask(async |query| query.dead_letter(&service, id).await).await?;
                let value = read(&whole, inbox_of(&service, console).await);
                match console.format {
                    Format::Json => console.json(&Shown::of(&whole, &value)),
                    Format::Text => console.print(&text(&whole, &value)),
                }
            }
            What::Retry(Which { service, ids, .. }) => {
                let words = console.ask(async |query| query.dead_retry(&service, &ids).await).await?;
                done(&words, console)
            }
            What::Drop(Which { service, ids, .. }) => {
                let words = console.ask(async |query| query.dead_drop(&service, &ids).await).await?;
                done(&words, console)
            }
        }
    }
}

/// In JSON.
#[derive(Serialize)]
struct Shown<'w> {
    #[serde(flatten)]
    letter: &'w DeadLetter,
    /// In hexadecimal digits.
    payload: String,
    /// The message.
    value: Option<&'w RawValue>,
    /// Why there is none.
    unreadable: Option<&'w str>,
}

impl<'w> Shown<'w> {
    fn of(whole: &'w WholeDeadLetter, value: &'w Result<Box<RawValue>, String>) -> Self {
        let (letter, payload) = (&whole.letter, hex(&whole.payload));
        let unreadable = value.as_ref().err().map(String::as_str);
        Self { letter, payload, value: value.as_deref().ok(), unreadable }
    }
}

/// What the message says, by what its receiver takes now; or why that can't be told.
fn read(whole: &WholeDeadLetter, inbox: Result<Inbox, CliError>) -> Result<Box<RawValue>, String> {
    let inbox = inbox.map_err(|error| error.to_string())?;
    let DeadLetter { receiver, message, .. } = &whole.letter;
    let known = inbox.contract().name_of(&whole.payload);
    if known != message.as_deref() {
        return Err(format!("{receiver} takes other messages by now"));
    }
    match inbox.decode(&whole.payload) {
        Ok(Ok(json)) => Ok(RawValue::from_string(json).expect("it is written as JSON")),
        Ok(Err(none)) => Err(none.to_string()),
        Err(unreadable) => Err(format!("{receiver} takes another message of this name by now: {unreadable}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn list(letters: &[DeadLetter], look: &Look) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let column = |head, align, rank, cut| Column { head, align, rank: Rank(rank), cut };
    let mut table = Table::new(vec![
        column("TO", Align::Left, 0, None),
        column("ID", Align::Left, 0, None),
        column("FROM", Align::Left, 0, None),
        column("MESSAGE", Align::Left, 1, None),
        column("SIZE", Align::Right, 2, None),
        column("MOVED", Align::Left, 3, None),
        column("LAST DEATH", Align::Left, 1, Some(30)),
    ]);
    for letter in letters {
        table.row(vec![
            Cell::new(letter.receiver.as_str()),
            Cell::new(letter.id.to_string()),
            Cell::new(letter.sender.as_str()),
            Cell::maybe(letter.message.as_ref()),
            Cell::new(size(letter.size)),
            Cell::new(time(letter.moved_us)),
            Cell::maybe(letter.deaths.last().map(|death| &death.cause)),
        ]);
    }
    table.render(look)
}

fn text(
    WholeDeadLetter { letter, payload }: &WholeDeadLetter,
    value: &Result<Box<RawValue>, String>,
) -> String {
    let way = if letter.asked { "asked" } else { "told" };
    let message = letter.message.as_deref().unwrap_or("unknown to its sender's contract");
    let mut text = format!(
        "id       {}\nto       {}\nfrom     {}\nmessage  {}, {way}\nmoved    {}\n",
        letter.id,
        letter.receiver,
        letter.sender,
        harmless(message),
        time(letter.moved_us),
    );
    for (at, death) in letter.deaths.iter().enumerate() {
        let head = if at == 0 { "deaths" } else { "" };
        text += &format!("{head:<9}incarnation {}: {}\n", death.incarnation, harmless(&death.cause));
    }
    match value {
        Ok(json) => {
            return text + &format!("payload  {}\n  {}\n", size(letter.size), harmless_json(json.get()));
        }
        Err(why) => text += &format!("payload  {}, as bytes: {}\n", size(letter.size), harmless(why)),
    }
    for (at, line) in payload.chunks(16).enumerate() {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' };
        let characters: String = line.iter().map(plain).collect();
        text += &format!("  {:08x}  {:<47}  {characters}\n", at * 16, bytes.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::dead::DeathRecord;
    use watchdog_protocol::manifest::{Contract, Manifest, MessageShape, fnv1a};
    use watchdog_protocol::{Incarnation, LaneEpoch, MessageNumber};

    use super::*;

    fn letter() -> DeadLetter {
        let death = |incarnation, cause: &str| DeathRecord {
            incarnation: Incarnation::from_stored(incarnation),
            cause: cause.into(),
        };
        DeadLetter {
            id: MessageId { epoch: LaneEpoch::from_stored(0x5f0c), number: MessageNumber::from_stored(12) },
            receiver: "counter".parse().unwrap(),
            sender: "bumper".parse().unwrap(),
            message: Some("Add".into()),
            asked: false,
            size: 18,
            moved_us: 1_795_511_591_123_456,
            deaths: vec![death(3, "killed by SIGSEGV (signal 11)"), death(5, "ended with\x1b[2J")],
        }
    }

    #[test]
    fn a_dead_letter_shows_who_what_why_and_its_bytes() {
        let whole = WholeDeadLetter { letter: letter(), payload: b"\x00\x05hello, world\x1b[2J".to_vec() };
        insta::assert_snapshot!(text(&whole, &Err("counter takes other messages by now".into())));
    }

    #[test]
    fn a_dead_letter_is_read_by_what_its_receiver_takes_now() {
        let inbox = |name: &str, layout: &str| {
            let shape = MessageShape { name: name.into(), hash: fnv1a(layout.as_bytes()) };
            let (contract, layouts) = (Contract(vec![shape]), vec![Some(layout.to_owned())]);
            Ok(Inbox::of(&Manifest { format: 1, settings: None, state: None, contract, layouts }))
        };
        let whole = WholeDeadLetter { letter: letter(), payload: vec![0, 0xac, 2] };
        let value = read(&whole, inbox("Add", "n:u128,"));
        assert!(text(&whole, &value).ends_with("payload  18B\n  {\"Add\":{\"n\":300}}\n"));
        let shown = serde_json::to_value(Shown::of(&whole, &value)).unwrap();
        assert_eq!((&shown["payload"], &shown["value"]["Add"]["n"]), (&"00ac02".into(), &300.into()));

        let why = |name, layout| read(&whole, inbox(name, layout)).unwrap_err();
        assert_eq!(why("Sub", "n:u128,"), "counter takes other messages by now");
        assert_eq!(
            why("Add", "n:u8,"),
            "counter takes another message of this name by now: 1 bytes behind it"
        );
        let gone = CliError::NoInbox { service: "counter".parse().unwrap() };
        assert_eq!(read(&whole, Err(gone)).unwrap_err(), "`counter` is a plain program and has no inbox");
    }

    #[test]
    fn dead_letters_are_a_table_and_none_is_said() {
        let plain = Look { color: false, width: None };
        insta::assert_snapshot!(format!("{}{}", list(&[letter()], &plain), list(&[], &plain)));
    }
}
