use watchdog_service::Message;

#[derive(Message)]
struct OneMsg {
    n: u32,
}

#[derive(Message)]
union EitherMsg {
    n: u32,
    m: f32,
}

#[derive(Message)]
enum NoneMsg {}

fn main() {}
