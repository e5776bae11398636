//! `watchdog completions`: scripts that complete verbs and options, and the names of services as they are now.

use clap::ValueEnum;
use clap_complete::{Shell, generate};

use super::console::Console;
use super::report::CliError;

/// Print a script that completes the command line in a shell: verbs, options, and the services there are.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  source <(watchdog completions bash)\n  watchdog completions zsh > ~/.zfunc/_watchdog\n  watchdog completions fish > ~/.config/fish/completions/watchdog.fish"
)]
pub(super) struct Arguments {
    /// Which shell.
    shell: For,
}

/// Whom the output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
    /// The scripts themselves ask for the names of all services, a line each.
    #[value(hide = true)]
    Services,
}

impl Arguments {
    pub(super) async fn execute(self, console: &Console) -> Result<(), CliError> {
        match self.shell {
            For::Bash => console.print(&bash()),
            For::Zsh => console.print(&zsh()),
            For::Fish => console.print(&fish()),
            For::Services => services(console).await,
        }
    }
}

/// Of the watchdog that runs, else of the configuration. Without either there are none, which is no error: nobody reads
/// one in the middle of typing.
async fn services(console: &Console) -> Result<(), CliError> {
    let Ok(place) = console.place() else { return Ok(()) };
    let names = match console.ask(async |query| query.status(&[]).await).await {
        Ok(status) => status.services.into_iter().map(|service| service.name).collect(),
        Err(_) => place.services,
    };
    console.print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// The verbs that name services, and those whose own verbs do, each with these: `state show`.
fn verbs() -> Vec<(String, Vec<String>)> {
    let names_one = |verb: &clap::Command| {
        verb.get_positionals().any(|arg| matches!(arg.get_id().as_str(), "service" | "services"))
    };
    let named = |verb: &clap::Command| verb.get_name().to_owned();
    let of_verb = |verb: &clap::Command| {
        let own: Vec<_> = verb.get_subcommands().filter(|own| names_one(own)).map(named).collect();
        (names_one(verb) || !own.is_empty()).then(|| (named(verb), own))
    };
    super::command().get_subcommands().filter_map(of_verb).collect()
}

fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut super::command(), "watchdog", &mut text);
    String::from_utf8(text).expect("a script of our words is text")
}

/// The first words that are no options are the verb.
fn bash() -> String {
    let (whole, begun): (Vec<_>, Vec<_>) = verbs().into_iter().partition(|(_, own)| own.is_empty());
    let of_two = begun.iter().flat_map(|(verb, own)| own.iter().map(move |own| format!("\"{verb} {own}\"")));
    let patterns: Vec<_> = whole.into_iter().map(|(verb, _)| verb).chain(of_two).collect();
    let begun: Vec<_> = begun.into_iter().map(|(verb, _)| verb).collect();
    format!(
        r#"{}
_watchdog_with_services() {{
    _watchdog "$@"
    local word verb=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in
            -*) continue ;;
        esac
        verb="${{verb:+$verb }}$word"
        case "$verb" in
            {}) ;;
            {})
                if [[ "${{COMP_WORDS[COMP_CWORD]}}" != -* ]]; then
                    COMPREPLY=($(compgen -W "$(watchdog completions services 2>/dev/null)" -- "${{COMP_WORDS[COMP_CWORD]}}"))
                fi
                return 0 ;;
            *) return 0 ;;
        esac
    done
}}
complete -F _watchdog_with_services -o nosort -o bashdefault -o default watchdog
"#,
        script(Shell::Bash),
        begun.join("|"),
        patterns.join("|"),
    )
}

/// What completes a service's name is a function instead of the usual files.
fn zsh() -> String {
    let script = script(Shell::Zsh);
    let lines = script.lines().map(|line| match line.trim_start() {
        names
            if ["':service -- ", "'::service -- ", "'*::services -- "]
                .iter()
                .any(|of| names.starts_with(of)) =>
        {
            line.replace(":_default'", ":_watchdog_services'")
        }
        _ => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    let services = "_watchdog_services() {\n    local -a names\n    names=(${(f)\"$(watchdog completions services 2>/dev/null)\"})\n    compadd -a names\n}\n";
    // Before the call at the script's end.
    lines.join("\n").replacen("_watchdog() {", &format!("{services}\n_watchdog() {{"), 1) + "\n"
}

fn fish() -> String {
    let mut text = script(Shell::Fish);
    for (verb, own) in verbs() {
        let seen = match own.is_empty() {
            true => String::new(),
            false => format!("; and __fish_seen_subcommand_from {}", own.join(" ")),
        };
        text += &format!(
            "complete -c watchdog -n \"__fish_seen_subcommand_from {verb}{seen}\" -f -a \"(watchdog completions services 2>/dev/null)\"\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_that_names_services_completes_them() {
        let verbs = verbs();
        for verb in ["start", "stop", "status", "set", "logs", "why"] {
            assert!(verbs.iter().any(|(known, own)| known == verb && own.is_empty()), "{verb}: {verbs:?}");
        }
        assert!(!verbs.iter().any(|(verb, _)| verb == "run" || verb == "upgrade"), "{verbs:?}");
        let own = |verb: &str| verbs.iter().find(|(known, _)| known == verb).map(|(_, own)| own.join(" "));
        assert_eq!(own("state").unwrap(), "show export import reset");
        assert!(bash().contains("|\"state show\"|"));
        assert!(fish().contains("from state; and __fish_seen_subcommand_from show export import reset\""));
    }

    #[test]
    fn in_zsh_no_service_is_completed_by_files() {
        let script = zsh();
        let named =
            script.lines().filter(|line| line.contains("service -- ") || line.contains("services -- "));
        let named: Vec<&str> = named.collect();
        assert!(!named.is_empty());
        assert!(named.iter().all(|line| line.contains(":_watchdog_services'")), "{named:#?}");
    }
}
