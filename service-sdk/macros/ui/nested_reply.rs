use watchdog_service::{Message, Reply};

#[derive(Message)]
enum MaybeMsg {
    Ask { reply: Option<Reply<u32>> },
}

#[derive(Message)]
enum DeepMsg {
    Ask { reply: Reply<Reply<u32>> },
}

fn main() {}
