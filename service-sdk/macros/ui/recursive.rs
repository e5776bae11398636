use watchdog_service::Payload;

#[derive(Payload)]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Payload)]
enum List {
    End,
    Then(u32, Box<List>),
}

fn main() {}
