//! One executable, two roles: the keeper with its core, and the command line.

fn main() -> std::process::ExitCode {
    watchdog::main()
}
