//! `HORSESHOE_...` variables. Scripts, unit files and containers set many of them to the empty
//! string if a setting is not given, and misspell some.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap::builder::Resettable;
use clap::{Arg, Command};

const PREFIX: &str = "HORSESHOE_";
/// Variables that the program reads without a flag; and those of the scripts and tests.
const OTHERS: [&str; 4] = [
    "HORSESHOE_NODES",
    super::lock::TOKEN_VARIABLE,
    "HORSESHOE_LAB",
    "HORSESHOE_BIN",
];

/// An empty variable counts as not set.
pub fn without_empty(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let without = |arg: Arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(Resettable::Reset),
        false => arg,
    };
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    let command = command.mut_args(without);
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, without_empty)
    })
}

/// The variables of this process that are set, have the program's prefix, and are unknown to it.
pub fn unknown(command: &Command) -> Vec<String> {
    let mut known = BTreeSet::from(OTHERS.map(str::to_owned));
    collect(command, &mut known);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> = names.filter(|name| is_unknown(name, &known)).collect();
    unknown.sort();
    unknown
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|arg| arg.get_env());
    known.extend(names.map(|name| name.to_string_lossy().into_owned()));
    for sub in command.get_subcommands() {
        collect(sub, known);
    }
}

/// Kubernetes and Docker set variables named after each service, and a service may be called
/// `horseshoe`.
fn is_unknown(name: &str, known: &BTreeSet<String>) -> bool {
    let is_of_service = |rest: &str| {
        rest.starts_with("PORT") || rest.contains("_PORT") || rest.contains("SERVICE_")
    };
    let rest = name.strip_prefix(PREFIX);
    rest.is_some_and(|rest| !is_of_service(rest)) && !known.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_unknown() {
        let known = BTreeSet::from(["HORSESHOE_DATA_DIR".to_owned()]);
        let of = |name| is_unknown(name, &known);
        assert!(of("HORSESHOE_DATADIR"));
        for name in [
            "HORSESHOE_DATA_DIR",
            "HORSESHOE_PORT",
            "HORSESHOE_PORT_8801_UDP_ADDR",
            "HORSESHOE_SERVICE_HOST",
            "HORSESHOE_2_SERVICE_PORT_STORE",
            "PATH",
        ] {
            assert!(!of(name), "{name}");
        }
    }
}
