use watchdog_service::Message;

#[derive(Message)]
enum NumberedMsg {
    First = 7,
}

fn main() {}
