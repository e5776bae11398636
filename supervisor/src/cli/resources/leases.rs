//! `watchdog resources leases`.

use serde::Deserialize;

use super::Manager;
use crate::cli::console::{Console, Format};
use crate::cli::look::{Look, Paint, harmless};
use crate::cli::report::CliError;
use crate::cli::table::{Align, Cell, Column, Rank, Table};

/// Show who borrows how many tokens of what services declare.
///
/// LENT is what one may be using, WANTED what it would like to have. What it was asked to give back of what it has is its
/// until its lease ends, 16 seconds at the most.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  watchdog resources leases\n\nWith --json the answer of the manager as it is."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    manager: Manager,
}

/// What the manager answers.
#[derive(Debug, Deserialize)]
struct Lending {
    resource: String,
    total: u32,
    borrowers: Vec<Borrowing>,
}

#[derive(Debug, Deserialize)]
struct Borrowing {
    service: String,
    priority: u8,
    guaranteed: u32,
    wanted: u32,
    lent: u32,
    asked_back: u32,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        let (json, lent) = self.manager.ask::<Vec<Lending>>("\"Leases\"", console).await?;
        match console.format {
            Format::Json => console.json_text(&json),
            Format::Text => console.print(&text(&lent, &console.look)),
        }
    }
}

fn text(lent: &[Lending], look: &Look) -> String {
    if lent.is_empty() {
        return "no service declares what could be lent\n".to_owned();
    }
    let one = |lending: &Lending| {
        let sum: u64 = lending.borrowers.iter().map(|one| u64::from(one.lent)).sum();
        let name = harmless(&lending.resource);
        let head = format!("{}: {sum} of {} lent\n", look.paint(Paint::Strong, &name), lending.total);
        let rows = if lending.borrowers.is_empty() { String::new() } else { table(lending).render(look) };
        head + &rows
    };
    lent.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn table(lending: &Lending) -> Table {
    let column = |head, align, rank| Column { head, align, rank: Rank(rank), cut: None };
    let mut table = Table::new(vec![
        column("BORROWER", Align::Left, 0),
        column("PRIORITY", Align::Right, 1),
        column("GUARANTEED", Align::Right, 2),
        column("WANTED", Align::Right, 0),
        column("LENT", Align::Right, 0),
        column("TO GIVE BACK", Align::Right, 0),
    ]);
    for one in &lending.borrowers {
        let some = |tokens: u32| Cell::maybe((tokens > 0).then(|| tokens.to_string()));
        let is_short = one.lent - one.asked_back.min(one.lent) < one.wanted;
        table.row(vec![
            Cell::new(&one.service),
            Cell::new(one.priority.to_string()),
            some(one.guaranteed),
            Cell::painted(one.wanted.to_string(), if is_short { Paint::Doubtful } else { Paint::Plain }),
            Cell::new(one.lent.to_string()),
            some(one.asked_back),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_what_is_a_table_for_each_resource() {
        let lent: Vec<Lending> = serde_json::from_str(
            r#"[
                {"resource":"db-connections","total":100,"borrowers":[
                    {"service":"batch","priority":10,"guaranteed":0,"wanted":80,"lent":50,"asked_back":20},
                    {"service":"web@1","priority":90,"guaranteed":10,"wanted":40,"lent":20,"asked_back":0}
                ]},
                {"resource":"gpu-slots","total":4,"borrowers":[]}
            ]"#,
        )
        .unwrap();
        let wide = Look { color: false, width: Some(80) };
        insta::assert_snapshot!(text(&lent, &wide), @r"
        db-connections: 70 of 100 lent
        BORROWER  PRIORITY  GUARANTEED  WANTED  LENT  TO GIVE BACK
        batch           10           -      80    50            20
        web@1           90          10      40    20             -

        gpu-slots: 0 of 4 lent
        ");
        let narrow = Look { color: false, width: Some(48) };
        insta::assert_snapshot!(text(&lent[..1], &narrow), @r"
        db-connections: 70 of 100 lent
        BORROWER  PRIORITY  WANTED  LENT  TO GIVE BACK
        batch           10      80    50            20
        web@1           90      40    20             -
        ");
        assert_eq!(text(&[], &wide), "no service declares what could be lent\n");
    }
}
