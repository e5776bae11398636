//! What is drawn.

use std::path::Path;

use watchdog_protocol::graph::GraphLane;
use watchdog_protocol::status::PhaseStatus;

use super::*;
use crate::cli::look::Look;

const FILE: &str = r#"
[service.end]
exec = ["/e"]
requires = ["worker"]
use = ["worker@1", "class-*"]
control = ["status", "stop:class-*"]
[service.worker]
exec = ["/w"]
instances = 2
after = ["subgraph"]
offer = ["end"]
use = []
[program.subgraph]
exec = ["/s"]
[task.style]
exec = ["/m"]
[service.class-default]
exec = ["/c"]
[group.click]
members = ["subgraph", "style"]
strategy = "one-for-all"
"#;

fn file() -> Graph {
    config::drawn(&config::parse(Path::new("/srv/watchdog.toml"), FILE).unwrap())
}

/// The same, of a watchdog that runs.
fn running() -> Graph {
    let mut graph = file();
    for service in &mut graph.services {
        service.phase = Some(PhaseStatus::Ready);
    }
    graph.services[0].phase = Some(PhaseStatus::Failed);
    let name = |name: &str| name.parse().unwrap();
    graph.lanes = vec![
        GraphLane {
            sender: name("end"),
            receiver: name("worker@1"),
            sent: 1003,
            queued: 3,
            is_retired: false,
        },
        GraphLane {
            sender: name("class-default"),
            receiver: name("end"),
            sent: 1,
            queued: 1,
            is_retired: true,
        },
    ];
    graph
}

fn text(graph: &Graph, view: View) -> String {
    text::table(graph, view, &Look { color: false, width: None })
}

#[test]
fn a_graph_is_a_table() {
    insta::assert_snapshot!(text(&file(), View::Dependencies), @r#"
    SERVICE        REQUIRES  AFTER     GROUP
    class-default  -         -         -
    end            worker    -         -
    style          -         subgraph  click (one-for-all)
    subgraph       -         -         click (one-for-all)
    worker@1       -         subgraph  -
    worker@2       -         subgraph  -
    "#);
    insta::assert_snapshot!(text(&running(), View::Permissions), @r#"
    SERVICE        PHASE   MAY TALK TO              MAY ASK THE WATCHDOG
    class-default  failed  end                      -
    end            ready   class-default, worker@1  status:*, stop:class-*
    worker@1       ready   nobody                   -
    worker@2       ready   nobody                   -

    FROM           TO        SENT  QUEUED  NOTE
    end            worker@1  1003       3  -
    class-default  end          1       1  may send no more
    "#);
}

#[test]
fn a_graph_is_a_flowchart_whatever_words_the_names_are() {
    insta::assert_snapshot!(mermaid::chart(&file(), View::Dependencies), @r#"
    flowchart LR
        subgraph g0["click (one-for-all)"]
        s2{{"style"}}
        s3("subgraph")
        end
        s0["class-default"]
        s1["end"]
        s4["worker@1"]
        s5["worker@2"]
        s1 -->|requires| s4
        s1 -->|requires| s5
        s2 -.->|after| s3
        s4 -.->|after| s3
        s5 -.->|after| s3
    "#);
    insta::assert_snapshot!(mermaid::chart(&running(), View::Permissions), @r#"
    flowchart LR
        s0["class-default<br/>failed"]
        style s0 stroke:#c00,stroke-width:3px
        s1["end<br/>ready"]
        s4["worker@1<br/>ready"]
        s5["worker@2<br/>ready"]
        s1 ==>|"1003 sent, 3 queued"| s4
        s0 ==>|"1 sent, 1 queued, may send no more"| s1
        s0 -.-> s1
        s1 -.-> s0
        watchdog{{"watchdog"}}
        s1 -->|"status:*, stop:class-*"| watchdog
    "#);
}

#[test]
fn who_may_talk_to_everybody_is_said_in_one_word() {
    let all = ["a", "b", "c"].map(|name| format!("[service.{name}]\nexec = [\"/x\"]\n")).concat();
    let graph = config::drawn(&config::parse(Path::new("/srv/watchdog.toml"), all.as_str()).unwrap());
    let chart = mermaid::chart(&graph, View::Permissions);
    assert_eq!(chart.matches("-.-> everybody").count(), 3, "{chart}");
    assert_eq!(text(&graph, View::Permissions).matches("everybody").count(), 3);
    let json = serde_json::to_value(InJson::of(&graph, View::Permissions)).unwrap();
    assert_eq!(json["may_talk"][0]["receivers"], serde_json::json!(["b", "c"]));
}

#[test]
fn no_text_ends_its_quotes() {
    let mut graph = file();
    graph.services[0].control = vec!["\"]; click s0 `#".to_owned()];
    let chart = mermaid::chart(&graph, View::Permissions);
    let line = chart.lines().find(|line| line.contains("click")).unwrap();
    assert_eq!(line.matches('"').count(), 2, "{line}");
}
