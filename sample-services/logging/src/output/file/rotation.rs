//! When a file is long or old enough. Pure.

/// What ends a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotation {
    /// In bytes.
    pub(super) max_size: u64,
    /// In milliseconds.
    pub(super) every: Option<u64>,
}

impl Rotation {
    /// How many bytes of these whole lines go to a file of this `length`, last written then; `None`: it is done, and
    /// the next one takes them. An empty file always takes a line.
    pub(super) fn room_for(&self, lines: &[u8], length: u64, last_write: u64, now: u64) -> Option<usize> {
        let period = |at: u64| self.every.map(|every| at / every);
        if length > 0 && period(last_write) < period(now) {
            return None;
        }
        let room = usize::try_from(self.max_size.saturating_sub(length)).unwrap_or(usize::MAX);
        if lines.len() <= room {
            return Some(lines.len());
        }
        let end_of = |line: usize| line + 1;
        match lines[..room].iter().rposition(|byte| *byte == b'\n') {
            Some(last) => Some(end_of(last)),
            None if length > 0 => None,
            None => Some(lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), end_of)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_ends_where_a_period_does() {
        let rotation = Rotation { max_size: 100, every: Some(1000) };
        assert_eq!(rotation.room_for(b"a\n", 10, 1_999, 1_999), Some(2));
        assert_eq!(rotation.room_for(b"a\n", 10, 1_999, 2_000), None);
        assert_eq!(rotation.room_for(b"a\n", 0, 1_999, 2_000), Some(2));
        // A clock that was set back ends none.
        assert_eq!(rotation.room_for(b"a\n", 10, 2_000, 1_000), Some(2));
    }

    proptest! {
        #[test]
        fn files_hold_whole_lines_and_no_more_than_they_may(
            lines in prop::collection::vec(0usize..50, 1..40), max_size in 1u64..60
        ) {
            let rotation = Rotation { max_size, every: None };
            let text: Vec<u8> = lines.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
            let mut files = vec![Vec::new()];
            let mut rest = &text[..];
            while !rest.is_empty() {
                let file: &mut Vec<u8> = files.last_mut().unwrap();
                match rotation.room_for(rest, file.len() as u64, 0, 0) {
                    Some(take) => {
                        prop_assert!(take > 0);
                        file.extend_from_slice(&rest[..take]);
                        rest = &rest[take..];
                    }
                    None => {
                        prop_assert!(!file.is_empty());
                        files.push(Vec::new());
                    }
                }
            }
            for file in &files {
                prop_assert_eq!(file.last(), Some(&b'\n'));
                let is_one_line = file.iter().filter(|byte| **byte == b'\n').count() == 1;
                prop_assert!(file.len() as u64 <= max_size || is_one_line);
            }
            prop_assert_eq!(files.concat(), text);
        }
    }
}
