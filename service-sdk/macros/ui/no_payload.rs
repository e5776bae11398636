use watchdog_service::Message;

struct Plain {
    n: u32,
}

#[derive(Message)]
enum PlainMsg {
    Put { plain: Plain },
}

fn main() {}
