//! [`ConsoleSink`]: the standard output of the service.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;

use super::{Load, Sink, SinkError};
use crate::format::Format;
use crate::settings::{ConsoleFormat, ConsoleSettings, OutputSettings};

/// Standard output, past the buffer of the library: a line that is written is out.
#[derive(Debug)]
pub(super) struct ConsoleSink {
    format: Format,
    out: Option<File>,
}

/// What the console is written in.
pub(super) fn format(settings: &ConsoleSettings) -> Format {
    match settings.format {
        ConsoleFormat::Pretty if io::stdout().is_terminal() => Format::Colour,
        ConsoleFormat::Pretty => Format::Pretty,
        ConsoleFormat::Json => Format::Json,
        ConsoleFormat::Logfmt => Format::Logfmt,
    }
}

impl ConsoleSink {
    pub(super) fn new(settings: &ConsoleSettings) -> Self {
        Self { format: format(settings), out: None }
    }

    fn out(&mut self) -> io::Result<&mut File> {
        let out = match self.out.take() {
            Some(out) => out,
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        Ok(self.out.insert(out))
    }
}

impl Sink for ConsoleSink {
    fn write(&mut self, load: &mut Load) -> Result<(), SinkError> {
        let format = self.format;
        let fails = |error: io::Error| SinkError(format!("cannot write to standard output: {error}"));
        let out = self.out().map_err(fails)?;
        for item in load {
            let lines = item.parcel.lines(format);
            // By hand, so that what is out is not written again after an error.
            while item.from < lines.len() {
                match out.write(&lines[item.from..]) {
                    Ok(0) => return Err(fails(ErrorKind::WriteZero.into())),
                    Ok(written) => item.from += written,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(fails(error)),
                }
            }
            item.is_done = true;
        }
        Ok(())
    }

    fn configure(&mut self, settings: &OutputSettings) {
        if let OutputSettings::Console(settings) = settings {
            self.format = format(settings);
        }
    }
}
