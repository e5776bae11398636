//! `watchdog diff`.

use watchdog_protocol::ServiceName;
use watchdog_protocol::plan::{Deed, FieldChange, Plan, ServicePlan, Way};

use super::console::{Console, Format};
use super::look::{Look, Paint, harmless};
use super::report::CliError;

/// Compare what the configuration's file says with what is in force and what runs. Exit code 1 when something differs.
///
/// A line for each key: what is in force, what the file says, and how far a change of it reaches: `live` to what runs,
/// `restart` to a new process, `recreate` to something of another kind. A program that was built anew since its process
/// started differs too. Values of `env` are not shown. `watchdog reload` puts the file in force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  watchdog diff\n  watchdog diff counter --json")]
pub(super) struct Arguments {
    /// Names of services, programs or tasks; all when there is none.
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let plan = console.ask(async |query| query.diff(&self.services).await).await?;
        match console.format {
            Format::Json => console.json(&plan)?,
            Format::Text => console.print(&text(&plan, &console.look))?,
        }
        if plan.is_empty() { Ok(()) } else { Err(CliError::Differs) }
    }
}

/// A paragraph for each service, group and the watchdog itself.
pub(super) fn text(plan: &Plan, look: &Look) -> String {
    if plan.is_empty() {
        return format!("{}: nothing differs from what is in force and what runs\n", harmless(&plan.config));
    }
    let mut text = String::new();
    if !plan.watchdog.is_empty() {
        text += &format!("{}\n", look.paint(Paint::Strong, "[watchdog]"));
        text += &fields(&plan.watchdog, look);
    }
    for group in &plan.groups {
        let name = look.paint(Paint::Strong, group.group.as_str());
        let (before, after) = (said(group.in_force.as_ref()), said(group.file.as_ref()));
        text += &format!("group {name}: {before} → {after} ({})\n", Way::Live);
    }
    for service in &plan.services {
        text += &paragraph(service, look);
    }
    text
}

fn paragraph(service: &ServicePlan, look: &Look) -> String {
    let paint = match service.deed {
        Deed::Live | Deed::Add => Paint::Good,
        Deed::Restart | Deed::Rename => Paint::Doubtful,
        Deed::Recreate | Deed::Remove => Paint::Bad,
    };
    let name = look.paint(Paint::Strong, service.service.as_str());
    let mut text = format!("{name}: {}", look.paint(paint, &service.deed.to_string()));
    if let Some(before) = &service.renamed_from {
        text += &format!(" of {before}");
    }
    text.push('\n');
    text += &fields(&service.fields, look);
    for note in &service.notes {
        text += &format!("  {}\n", look.paint(Paint::Faint, &harmless(note)));
    }
    text
}

fn fields(fields: &[FieldChange], look: &Look) -> String {
    let line = |field: &FieldChange| {
        let key = look.paint(Paint::Strong, &field.field).into_owned();
        let mut line = format!("  {key}: {}", said(field.in_force.as_ref()));
        if field.file != field.in_force {
            line += &format!(" → {}", said(field.file.as_ref()));
        }
        if field.running.is_some() && field.running != field.in_force {
            line += &format!(", runs with {}", said(field.running.as_ref()));
        }
        line + &format!(" ({})\n", field.way)
    };
    fields.iter().map(line).collect()
}

fn said(value: Option<&String>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| harmless(value))
}

#[cfg(test)]
mod tests {
    use watchdog_protocol::plan::{GroupPlan, PLAN_VERSION};

    use super::*;

    #[test]
    fn a_plan_says_what_becomes_of_whom_and_why() {
        let field = |field: &str, way: Way, in_force: Option<&str>, file: Option<&str>| FieldChange {
            field: field.to_owned(),
            way,
            file: file.map(str::to_owned),
            in_force: in_force.map(str::to_owned),
            running: in_force.map(str::to_owned),
        };
        let service = |name: &str, deed: Deed, fields: Vec<FieldChange>, notes: &[&str]| ServicePlan {
            service: name.parse().unwrap(),
            deed,
            renamed_from: (deed == Deed::Rename).then(|| "old".parse().unwrap()),
            fields,
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        };
        let there = Some("the file that is there now");
        let rebuilt = FieldChange {
            running: Some("a file that was there before".to_owned()),
            ..field("program", Way::Restart, there, there)
        };
        let plan = Plan {
            version: PLAN_VERSION,
            id: 7,
            config: "/w/watchdog.toml".to_owned(),
            watchdog: vec![field("log_size", Way::Live, Some("10485760 B"), Some("1048576 B"))],
            groups: vec![GroupPlan {
                group: "g".parse().unwrap(),
                file: Some("one-for-all of [a, b], restart_limit 5/60s".to_owned()),
                in_force: None,
            }],
            services: vec![
                service("late", Deed::Add, vec![], &[]),
                service(
                    "counter",
                    Deed::Restart,
                    vec![
                        field("exec", Way::Restart, Some("/w/counter"), Some("/w/counter --fast")),
                        field("settings.step", Way::Live, None, Some("2")),
                        rebuilt,
                    ],
                    &["stays down: stop by operator (uid 0)"],
                ),
                service("new", Deed::Rename, vec![], &[]),
                service("gone", Deed::Remove, vec![], &["what it has on disk stays"]),
            ],
        };
        insta::assert_snapshot!(text(&plan, &Look { color: false, width: None }), @r"
        [watchdog]
          log_size: 10485760 B → 1048576 B (live)
        group g: nothing → one-for-all of [a, b], restart_limit 5/60s (live)
        late: add
        counter: restart
          exec: /w/counter → /w/counter --fast (restart)
          settings.step: nothing → 2 (live)
          program: the file that is there now, runs with a file that was there before (restart)
          stays down: stop by operator (uid 0)
        new: rename of old
        gone: remove
          what it has on disk stays
        ");
        let nothing = Plan { watchdog: vec![], groups: vec![], services: vec![], ..plan };
        insta::assert_snapshot!(
            text(&nothing, &Look { color: false, width: None }),
            @"/w/watchdog.toml: nothing differs from what is in force and what runs"
        );
    }
}
