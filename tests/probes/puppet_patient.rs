//! A puppet whose asks may be delivered again.

use watchdog_tests::contract::PatientMsg;
use watchdog_tests::stage::{Memory, run};

fn main() -> std::process::ExitCode {
    run::<Memory, PatientMsg>()
}
