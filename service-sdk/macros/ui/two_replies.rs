use watchdog_service::{Message, Reply};

#[derive(Message)]
enum TwiceMsg {
    Ask { first: Reply<u32>, second: Reply<u64> },
}

fn main() {}
