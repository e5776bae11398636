use watchdog_service::Payload;

#[derive(Payload)]
struct Maybe {
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
}

#[derive(Payload)]
#[serde(untagged)]
enum Either {
    Number(u32),
    Text(String),
}

#[derive(Payload)]
union Overlay {
    n: u32,
    m: f32,
}

fn main() {}
