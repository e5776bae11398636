//! What the watchdog promises, each promise tried on real processes from outside. A name that starts with
//! `cfg_`, `ss_`, `ic_`, `hc_` or `ctl_` and a number carries the requirement it tries.

mod audit;
mod check;
mod command_line;
mod control;
mod daemons;
mod faults;
mod group;
mod health;
mod hostile;
mod instances;
mod intercom;
mod journal;
mod layout;
mod limits;
mod logging;
mod logs;
mod metrics;
mod notify;
mod otlp;
mod records;
mod registered;
mod reload;
mod resources;
mod restart;
mod safe_mode;
mod secrets;
mod settings;
mod shutdown;
mod spawn;
mod state;
mod task;
mod timeline;
mod upgrade;
mod usage;
mod why;
