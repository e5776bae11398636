//! A service that does not keep to the session protocol. It describes itself as one without settings, state and
//! messages, and then:
//!
//! `garbage` says what is no message; `late-garbage` does after it was ready; `silence` says nothing;
//! `version` says hello in a version to come; `twice` says hello again; `empty` sends packets of no bytes;
//! `large` sends one beyond any bound; `endless` never stops talking; `forged` answers what nobody asked.

use std::env;
use std::os::fd::RawFd;
use std::thread;

use nix::sys::socket::{MsgFlags, send};
use watchdog_protocol::manifest::{Contract, DESCRIBE, MANIFEST_FORMAT, Manifest};
use watchdog_protocol::session::{
    Content, FromService, Health, Hello, SESSION, SESSION_VERSION, Urgency, Verdict, encode,
};
use watchdog_protocol::{Revision, Sequence};

fn main() {
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        settings: None,
        state: None,
        contract: Contract(Vec::new()),
        layouts: Vec::new(),
    };
    if env::var_os(DESCRIBE).is_some() {
        println!("{}", manifest.to_json());
        return;
    }
    let session: RawFd = env::var(SESSION).expect("a service has a session").parse().expect("a descriptor");
    let say = |bytes: &[u8]| send(session, bytes, MsgFlags::MSG_NOSIGNAL).is_ok();
    let hello = |version| {
        say(&encode(&FromService::Hello(Hello {
            version,
            pid: std::process::id(),
            manifest: manifest.hash(),
        })))
    };
    let mode = env::args().nth(1).expect("what to do wrong");
    match mode.as_str() {
        "garbage" => {
            say(&[0xff; 64]);
        }
        "silence" => {}
        "version" => {
            hello(SESSION_VERSION + 41);
        }
        "twice" => {
            hello(SESSION_VERSION);
            hello(SESSION_VERSION);
        }
        "late-garbage" | "empty" | "large" | "endless" | "forged" => {
            hello(SESSION_VERSION);
            say(&encode(&FromService::Ready));
            match mode.as_str() {
                "late-garbage" => {
                    say(b"GET / HTTP/1.1\r\n\r\n");
                }
                "empty" => while say(&[]) {},
                "large" => {
                    say(&vec![0; 150 * 1024]);
                }
                "endless" => while say(&encode(&FromService::Health(Health::Ok))) {},
                _ => {
                    let content = Content::Inline(vec![1; 100]);
                    let sequence = Sequence::from_stored(u64::MAX);
                    say(&encode(&FromService::State {
                        sequence,
                        version: 9,
                        urgency: Urgency::Now,
                        content,
                    }));
                    let revision = Revision::from_stored(u64::MAX);
                    say(&encode(&FromService::Verdict { revision, verdict: Verdict::Accepted }));
                }
            }
        }
        other => panic!("no such wrong: {other}"),
    }
    loop {
        thread::park();
    }
}
