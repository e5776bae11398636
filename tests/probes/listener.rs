//! A plain server that is slow to start: listens at PORT once FILE exists, then accepts for ever.
//! Usage: `listener PORT FILE`.

use std::env;
use std::net::TcpListener;
use std::path::Path;

use watchdog_tests::until::until;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [port, file] = &args[..] else { panic!("usage: listener PORT FILE") };
    println!("waiting for {file}");
    until("the file that lets it listen", String::new, || Path::new(file).exists().then_some(()));
    let listener = TcpListener::bind(("127.0.0.1", port.parse().expect("a port"))).expect("the port is free");
    println!("listening");
    for connection in listener.incoming() {
        drop(connection);
    }
}
