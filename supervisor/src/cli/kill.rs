//! `watchdog kill`.

use nix::sys::signal::Signal;
use watchdog_protocol::ServiceName;

use super::changed;
use super::console::Console;
use super::report::CliError;
use super::wait::Wait;

/// Want services down at once, without time to save; or only send a signal.
///
/// A service that ends by a signal that was only sent has ended by itself: it is still wanted up, and its `restart` and
/// `restart_limit` decide what follows, as they do when somebody else kills it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog kill counter\n  watchdog kill --signal HUP nginx")]
pub(super) struct Arguments {
    /// Names of services, programs, tasks or groups.
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Only send this signal (HUP, SIGUSR1, 10); what is wanted stays as it is.
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    signal: Option<Signal>,
    #[command(flatten)]
    wait: Wait,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let ask = console.ask(async |query| match self.signal {
            Some(signal) => query.signal(&self.services, signal as i32).await,
            None => query.kill(&self.services, self.wait.time()).await,
        });
        changed::show(&ask.await?, console)
    }
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    let number = text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let name = || format!("SIG{}", text.to_ascii_uppercase().trim_start_matches("SIG")).parse().ok();
    number
        .or_else(name)
        .ok_or_else(|| format!("there is no signal {text:?}; expected a name or number: HUP, 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_with_or_without_sig_or_a_number() {
        for text in ["HUP", "SIGHUP", "sighup", "1"] {
            assert_eq!(parse_signal(text), Ok(Signal::SIGHUP), "{text}");
        }
        for text in ["", "0", "99", "HAP"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
