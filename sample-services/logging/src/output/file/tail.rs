//! The end of a file: what a killed process has left there.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::{SinkError, fails};
use crate::format::Format;

/// Read at once.
const BLOCK: usize = 64 << 10;

/// How far back a service's last record is looked for: behind it lies no more than what came from others while this
/// service was started again, which is a batch of each.
const FAR: u64 = 16 << 20;

/// The last record of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) incarnation: u64,
    pub(super) number: u64,
}

/// Cuts off what is behind the last line end; the length then.
pub(super) fn cut(file: &File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..usize::try_from(end - start).expect("at most a block")];
        file.read_exact_at(part, start)?;
        if let Some(last) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + last as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        tracing::info!(bytes = length - end, "half a record at the end of a file is cut off");
        file.set_len(end)?;
    }
    Ok(end)
}

/// The last record of a service in a file that is written no more.
pub(super) fn last_in(path: &Path, format: Format, service: &str) -> Result<Option<Last>, SinkError> {
    let reading = |error: io::Error| fails("read", path, &error);
    let file = File::open(path).map_err(reading)?;
    let length = file.metadata().map_err(reading)?.len();
    last_of(&file, length, format, service).map_err(reading)
}

/// The last record of a service in a file of whole lines.
pub(super) fn last_of(file: &File, length: u64, format: Format, service: &str) -> io::Result<Option<Last>> {
    let mut start = length;
    // From the start of a line, or of what was read of it, to where all lines are looked at.
    let mut rest: Vec<u8> = Vec::new();
    while start > 0 && length - start < FAR {
        let end = start;
        start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; usize::try_from(end - start).expect("at most a block")];
        file.read_exact_at(&mut block, start)?;
        block.extend_from_slice(&rest);
        // The first line may begin before the block.
        let whole = if start == 0 {
            0
        } else {
            block.iter().position(|byte| *byte == b'\n').map_or(block.len(), |at| at + 1)
        };
        for line in block[whole..].split(|byte| *byte == b'\n').rev() {
            if let Some((found, last)) = read(format, line)
                && found == service
            {
                return Ok(Some(last));
            }
        }
        block.truncate(whole);
        rest = block;
    }
    Ok(None)
}

/// Whose record a line is, and which; `None`: it is none.
fn read(format: Format, line: &[u8]) -> Option<(Cow<'_, str>, Last)> {
    #[derive(Deserialize)]
    struct Seen<'l> {
        #[serde(borrow)]
        service: Cow<'l, str>,
        incarnation: u64,
        number: u64,
    }
    match format {
        Format::Json => {
            let Seen { service, incarnation, number } = serde_json::from_slice(line).ok()?;
            Some((service, Last { incarnation, number }))
        }
        Format::Logfmt => {
            let line = std::str::from_utf8(line).ok()?;
            // They stand before whatever a program has to say.
            let value = |key: &str| {
                let mut pairs = line.split(' ').take(6).filter_map(|pair| pair.split_once('='));
                pairs.find(|(found, _)| *found == key).map(|(_, value)| value)
            };
            let (incarnation, number) = (value("incarnation")?.parse().ok()?, value("number")?.parse().ok()?);
            Some((value("service")?.into(), Last { incarnation, number }))
        }
        Format::Pretty | Format::Colour | Format::Journal => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let text = concat!(
            r#"{"time":"x","kind":"event","service":"a","incarnation":2,"pid":1,"number":7,"level":"INFO"}"#,
            "\nsomebody was here\n",
            r#"{"time":"x","kind":"dropped","service":"a","incarnation":2,"pid":1,"reason":"full","count":1}"#,
            "\n\n"
        );
        let found = last_of(&file(text.as_bytes()), text.len() as u64, Format::Json, "a").unwrap();
        assert_eq!(found, Some(Last { incarnation: 2, number: 7 }));
    }

    #[test]
    fn a_message_is_no_number() {
        let text = "time=x kind=event service=a incarnation=2 pid=1 number=7 message=\"number=9\"\n\
                    time=x kind=dropped service=a incarnation=2 pid=1 reason=full number=8\n";
        let found = last_of(&file(text.as_bytes()), text.len() as u64, Format::Logfmt, "a").unwrap();
        assert_eq!(found, Some(Last { incarnation: 2, number: 7 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_last_of_each_is_found_whatever_the_length_of_lines(
            lines in prop::collection::vec((0u64..3, 0usize..100_000), 1..12), format in 0..2
        ) {
            let format = if format == 0 { Format::Json } else { Format::Logfmt };
            let mut text = Vec::new();
            let mut last = [None; 3];
            for (number, (service, padding)) in (1..).zip(lines) {
                let padding = "x".repeat(padding);
                match format {
                    Format::Json => writeln!(
                        text, r#"{{"service":"s{service}","incarnation":4,"number":{number},"message":"{padding}"}}"#
                    ),
                    _ => writeln!(text, "service=s{service} incarnation=4 number={number} message={padding}"),
                }.unwrap();
                last[usize::try_from(service).unwrap()] = Some(Last { incarnation: 4, number });
            }
            let file = file(&text);
            for (service, expected) in last.into_iter().enumerate() {
                let found = last_of(&file, text.len() as u64, format, &format!("s{service}")).unwrap();
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn only_half_a_line_is_cut_off(
            lines in prop::collection::vec(0usize..100_000, 0..4), torn in 0usize..200_000
        ) {
            let whole: Vec<u8> = lines.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
            let text = [whole.clone(), vec![b'y'; torn]].concat();
            let file = file(&text);
            prop_assert_eq!(cut(&file, text.len() as u64).unwrap(), whole.len() as u64);
            prop_assert_eq!(file.metadata().unwrap().len(), whole.len() as u64);
        }
    }
}
