use watchdog_service::{Message, Reply};

#[derive(Message)]
#[message(idempotant)]
enum MisspeltMsg {
    Get { reply: Reply<u32> },
}

#[derive(Message)]
enum MisplacedMsg {
    #[message(idempotent)]
    Get { reply: Reply<u32> },
}

fn main() {}
