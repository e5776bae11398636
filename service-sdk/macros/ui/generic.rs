use watchdog_service::{Message, Payload};

#[derive(Message)]
enum AnyMsg<T> {
    Put { value: T },
}

#[derive(Message)]
enum BorrowedMsg<'a> {
    Put { text: &'a str },
}

#[derive(Payload)]
struct Wrapped<T>(T);

fn main() {}
