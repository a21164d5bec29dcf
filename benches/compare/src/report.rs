//! The tables and plots of a run, for `docs/performance.md`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::killed::WAIT_MAX;
use crate::plan::{
    CLIENTS, COUNTED_GET, COUNTED_PUT, GET, GET_LARGE, HALF, HALF_ZIPF, HOT, PUT, PUT_LARGE,
};
use crate::plot::{Line, draw};
use crate::results::{LoadKey, Medians, Results, median};
use crate::systems::{Keep, System};
use crate::targets::targets;

const BEGIN: &str = "<!-- written by benches/compare/run.sh: begin -->";
const END: &str = "<!-- written by benches/compare/run.sh: end -->";

/// Replaces what is between the two marks in the page.
pub fn write(results: &Results, page: &Path) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("no page {}", page.display()))?;
    let missing = || format!("{} lacks the line {BEGIN} or {END}", page.display());
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    let directory = page.parent().context("a page is in a directory")?;
    let tables = tables(results, directory)?;
    fs::write(page, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))?;
    Ok(())
}

fn tables(results: &Results, directory: &Path) -> Result<String> {
    let mut text = String::new();
    introduce(&mut text, results)?;
    show_targets(&mut text, results)?;
    for (name, title, workload, keep) in [
        ("puts", "Puts, memory", PUT, Keep::Memory),
        ("gets", "Gets, memory", GET, Keep::Memory),
        (
            "half",
            "Gets and puts, half and half, memory",
            HALF,
            Keep::Memory,
        ),
        ("puts-fsync", "Puts, fsync", PUT, Keep::Fsync),
    ] {
        let file = format!("performance-{name}.svg");
        draw(
            &directory.join(&file),
            title,
            &lines(results, workload, keep),
        )?;
        writeln!(text, "### {title}\n\n![{title}]({file})\n")?;
        show_throughput(&mut text, results, workload, keep)?;
    }
    writeln!(text, "### Puts, `os`\n")?;
    show_throughput(&mut text, results, PUT, Keep::Os)?;
    show_others(&mut text, results)?;
    show_costs(&mut text, results)?;
    show_kills(&mut text, results)?;
    show_large(&mut text, results)?;
    show_chains(&mut text, results)?;
    Ok(text.trim_end().to_owned() + "\n")
}

fn introduce(text: &mut String, results: &Results) -> Result<()> {
    writeln!(text, "Measured on {}: {}.", results.date, results.machine)?;
    let Results {
        rounds, seconds, ..
    } = results;
    writeln!(
        text,
        "Each load ran for {seconds} s after 1 s of warm-up, {rounds} times; medians.\n"
    )?;
    writeln!(text, "| system | version |\n|---|---|")?;
    for (system, version) in &results.versions {
        let version = version.as_deref().unwrap_or("not installed, left out");
        writeln!(text, "| {system} | {version} |")?;
    }
    writeln!(text)?;
    Ok(())
}

fn show_targets(text: &mut String, results: &Results) -> Result<()> {
    writeln!(text, "### Targets\n\n| figure | target | found | |")?;
    writeln!(text, "|---|---:|---:|---|")?;
    for target in targets(results) {
        let bound = if target.is_limit {
            "at most"
        } else {
            "at least"
        };
        let found = target.found.map_or("not measured".into(), number);
        let holds = match target.holds() {
            None => "",
            Some(true) => "holds",
            Some(false) => "**missed**",
        };
        let (what, unit) = (target.what, target.unit);
        let limit = number(target.target);
        writeln!(
            text,
            "| {what} | {bound} {limit} {unit} | {found} | {holds} |"
        )?;
    }
    writeln!(text)?;
    Ok(())
}

/// With as many digits as tell something, and commas between thousands.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => grouped(value.round() as u64),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn lines(results: &Results, workload: &str, keep: Keep) -> Vec<Line> {
    let medians = results.medians();
    let line = |system| {
        let of_line = medians.iter().filter(|(key, _)| {
            (key.system, key.workload.as_str(), key.keep) == (system, workload, keep)
        });
        let points = of_line.map(|(key, medians)| (key.clients, medians.per_second));
        Line {
            system,
            points: points.collect(),
        }
    };
    let lines = System::ALL.map(line).into_iter();
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// A row for each number of clients, a column for each system, and the ratios.
fn show_throughput(text: &mut String, results: &Results, workload: &str, keep: Keep) -> Result<()> {
    let medians = results.medians();
    let measured = |system: &System, clients| {
        let key = LoadKey {
            workload: workload.to_owned(),
            keep,
            clients,
            system: *system,
        };
        medians.get(&key)
    };
    let is_shown = |system: &&System| CLIENTS.iter().any(|n| measured(system, *n).is_some());
    let systems: Vec<System> = System::ALL.iter().filter(is_shown).copied().collect();
    head(text, "clients", &systems)?;
    for clients in CLIENTS {
        let own = measured(&System::Horseshoe, clients).map(|own| own.per_second);
        let cells = systems
            .iter()
            .map(|system| cell(measured(system, clients), *system, own));
        let cells: Vec<String> = cells.collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            writeln!(
                text,
                "| {} | {} |",
                grouped(clients as u64),
                cells.join(" | ")
            )?;
        }
    }
    writeln!(text)?;
    Ok(())
}

fn head(text: &mut String, first: &str, systems: &[System]) -> Result<()> {
    let names: Vec<String> = systems.iter().map(System::to_string).collect();
    writeln!(text, "| {first} | {} |", names.join(" | "))?;
    writeln!(text, "|---:|{}", "---:|".repeat(names.len()))?;
    Ok(())
}

/// Operations a second, the median latency, and how many times as many Horseshoe does.
fn cell(medians: Option<&Medians>, system: System, own: Option<f64>) -> String {
    let Some(medians) = medians else {
        return String::new();
    };
    let rate = grouped(medians.per_second.round() as u64);
    let p50_ms = medians.p50_us / 1e3;
    let ratio = match own {
        Some(own) if system != System::Horseshoe && medians.per_second > 0.0 => {
            format!(", {:.2} x", own / medians.per_second)
        }
        _ => String::new(),
    };
    let errors = match medians.errors {
        0 => String::new(),
        errors => format!(", {errors} errors"),
    };
    format!("{rate}/s, {p50_ms:.3} ms{ratio}{errors}")
}

fn show_others(text: &mut String, results: &Results) -> Result<()> {
    let medians = results.medians();
    writeln!(text, "### Other loads, memory\n")?;
    head(text, "load", &System::ALL)?;
    for (workload, clients, what) in [
        (PUT_LARGE, 64, "puts of 10 kB, 64 clients"),
        (GET_LARGE, 64, "gets of 10 kB, 64 clients"),
        (HALF_ZIPF, 64, "half and half, Zipf's law, 64 clients"),
        (HOT, 256, "256 clients add to one key"),
    ] {
        let measured = |system| {
            let key = LoadKey {
                workload: workload.to_owned(),
                keep: Keep::Memory,
                clients,
                system,
            };
            medians.get(&key)
        };
        let own = measured(System::Horseshoe).map(|own| own.per_second);
        let cells = System::ALL.map(|system| cell(measured(system), system, own));
        writeln!(text, "| {what} | {} |", cells.join(" | "))?;
    }
    writeln!(text)?;
    Ok(())
}

fn show_costs(text: &mut String, results: &Results) -> Result<()> {
    let medians = results.medians();
    writeln!(text, "### What an operation costs\n")?;
    writeln!(
        text,
        "Processor time and system calls are those of all five nodes; packets are all"
    )?;
    writeln!(
        text,
        "UDP datagrams and TCP segments, those of the clients and TCP's own among them.\n"
    )?;
    head(text, "operation", &System::ALL)?;
    for (workload, counted, what) in [(PUT, COUNTED_PUT, "put"), (GET, COUNTED_GET, "get")] {
        for clients in [1, 256] {
            let of = |workload: &str, system| {
                let key = LoadKey {
                    workload: workload.to_owned(),
                    keep: Keep::Memory,
                    clients,
                    system,
                };
                medians.get(&key)
            };
            let cells = System::ALL.map(|system| {
                let Some(usual) = of(workload, system) else {
                    return String::new();
                };
                let calls = of(counted, system).and_then(|counted| counted.system_calls);
                let calls = calls.map_or(String::new(), |n| format!(", {} calls", number(n)));
                let [cpu_us, packets] = [usual.cpu_us, usual.packets].map(number);
                format!("{cpu_us} us, {packets} packets{calls}")
            });
            let who = if clients == 1 {
                "1 client"
            } else {
                "256 clients"
            };
            writeln!(text, "| {what}, {who} | {} |", cells.join(" | "))?;
        }
    }
    for keep in [Keep::Os, Keep::Fsync] {
        let cells = System::ALL.map(|system| {
            let key = LoadKey {
                workload: PUT.to_owned(),
                keep,
                clients: 256,
                system,
            };
            let medians = medians.get(&key);
            medians.map_or(String::new(), |m| format!("{} us", number(m.cpu_us)))
        });
        let name = if keep == Keep::Os { "`os`" } else { "fsync" };
        writeln!(text, "| put, 256 clients, {name} | {} |", cells.join(" | "))?;
    }
    writeln!(text)?;
    Ok(())
}

fn show_kills(text: &mut String, results: &Results) -> Result<()> {
    if results.kills.is_empty() {
        return Ok(());
    }
    writeln!(text, "### The longest write when a node is killed\n")?;
    writeln!(
        text,
        "| system | kills | median, ms | longest, ms | without a kill, ms | failed |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|")?;
    let never_ms = WAIT_MAX.as_secs_f64() * 1e3;
    let shown = |ms: f64| match ms >= never_ms {
        true => format!("over {}", grouped(ms as u64)),
        false => format!("{ms:.0}"),
    };
    for kills in &results.kills {
        let Some(system) = kills.system else { continue };
        let longest = || kills.longest_ms.iter().map(|(_, ms)| *ms);
        writeln!(
            text,
            "| {system} | {} | {} | {} | {:.0} | {} |",
            kills.longest_ms.len(),
            shown(median(longest())),
            shown(longest().fold(0.0, f64::max)),
            median(kills.undisturbed_ms.iter().copied()),
            grouped(kills.failed),
        )?;
    }
    writeln!(text)?;
    Ok(())
}

fn show_large(text: &mut String, results: &Results) -> Result<()> {
    let Some((_, first)) = results.large.first() else {
        return Ok(());
    };
    writeln!(
        text,
        "### A store with {} keys, fsync\n",
        grouped(first.keys)
    )?;
    writeln!(
        text,
        "| system | filled in, s | memory of a key, bytes | after a restart | disk of a key, bytes \
         | one node starts, s | all start, s |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|---:|")?;
    for (system, store) in &results.large {
        let a_key = |size: u64| grouped(size / store.keys);
        writeln!(
            text,
            "| {system} | {:.0} | {} | {} | {} | {:.1} | {:.1} |",
            store.fill_seconds,
            a_key(store.resident),
            a_key(store.resident_restarted),
            a_key(store.disk),
            store.one_starts_seconds,
            store.all_start_seconds
        )?;
    }
    writeln!(text)?;
    Ok(())
}

fn show_chains(text: &mut String, results: &Results) -> Result<()> {
    if results.chains.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "### A chain of five: each node reaches only its neighbours\n"
    )?;
    writeln!(
        text,
        "| system | all links, puts/s | chain, puts/s | part |"
    )?;
    writeln!(text, "|---|---:|---:|---:|")?;
    for chain in &results.chains {
        let [whole, in_chain] = [&chain.whole, &chain.chain].map(|figures| figures.per_second);
        writeln!(
            text,
            "| {} | {} | {} | {:.0} % |",
            chain.system,
            grouped(whole.round() as u64),
            grouped(in_chain.round() as u64),
            100.0 * in_chain / whole.max(1.0)
        )?;
    }
    writeln!(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_tell_something() {
        let shown = [0.123, 4.56, 78.91, 123.4, 1_234_567.8].map(number);
        assert_eq!(shown, ["0.12", "4.56", "78.9", "123", "1,234,568"]);
    }
}
