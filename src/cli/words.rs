//! Arguments of the command line: bytes, times, the list of nodes.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bytes::Bytes;
use wire::TTL_MS_MAX;

/// The default nodes.
const NODES_DEFAULT: [&str; 5] = [
    "127.0.0.1:8801",
    "127.0.0.1:8802",
    "127.0.0.1:8803",
    "127.0.0.1:8804",
    "127.0.0.1:8805",
];

/// A key, unchanged.
pub fn key(word: OsString) -> Bytes {
    Bytes::from(word.into_vec())
}

/// A value, unchanged, or all of standard input for a single `-`.
pub fn value(word: OsString) -> std::io::Result<Bytes> {
    if word != "-" {
        return Ok(Bytes::from(word.into_vec()));
    }
    // One byte over the limit is enough to detect the excess.
    let limit = wire::VALUE_SIZE_MAX as u64 + 1;
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// The error for a node whose name does not resolve.
pub fn not_found(name: &str, why: &str) -> String {
    format!("the address of {name} can't be found: {why}")
}

/// The cluster that the user selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterWord {
    Id(u64),
    /// The name that the operator gave; two clusters may have the same.
    Name(String),
}

/// A cluster's id, 16 digits in hexadecimal as `status` shows it, or its name.
pub fn cluster(word: &str) -> Result<ClusterWord, String> {
    let is_id = word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u64::from_str_radix(word, 16).ok();
    match id.filter(|id| is_id && *id != 0) {
        Some(id) => Ok(ClusterWord::Id(id)),
        None if wire::is_cluster_name(word) => Ok(ClusterWord::Name(word.to_owned())),
        None => Err("neither a cluster's id, 16 hexadecimal digits, nor a name".to_owned()),
    }
}

/// A time above zero.
pub fn duration(word: &str) -> Result<Duration, String> {
    match duration_or_zero(word)? {
        Duration::ZERO => Err("a time has to be above zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A time to live, in milliseconds.
pub fn ttl(word: &str) -> Result<u64, String> {
    let ttl = duration(word)?;
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    match ttl_ms {
        0 => Err("a time to live is at least 1 ms".to_owned()),
        ttl_ms if ttl_ms > TTL_MS_MAX => {
            Err("a time to live is at most a hundred years".to_owned())
        }
        ttl_ms => Ok(ttl_ms),
    }
}

/// A number, of seconds unless a unit follows (`ms`, `s`, `m`, `h`, `d`).
pub fn duration_or_zero(word: &str) -> Result<Duration, String> {
    let digits = word
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("a time is a number of seconds, or ends in ms, s, m, h or d".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "too long".to_owned())
}

/// A number of bytes, or of units (`K`, `M`, `G`, `T`; each is 1,024 times the one before).
pub fn size(word: &str) -> Result<u64, String> {
    let (number, shift) = match word.as_bytes().last() {
        Some(b'K' | b'k') => (&word[..word.len() - 1], 10),
        Some(b'M' | b'm') => (&word[..word.len() - 1], 20),
        Some(b'G' | b'g') => (&word[..word.len() - 1], 30),
        Some(b'T' | b't') => (&word[..word.len() - 1], 40),
        _ => (word, 0),
    };
    let wrong = "a size is a number of bytes, or ends in K, M, G or T";
    let number: u64 = number.parse().map_err(|_| wrong.to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

/// The nodes to contact: the flag, else `HORSESHOE_NODES`, else `NODES`, else the default.
pub fn nodes(flag: Option<&str>) -> Vec<String> {
    let variable = |name| std::env::var(name).ok();
    let given = [
        flag.map(str::to_owned),
        variable("HORSESHOE_NODES"),
        variable("NODES"),
    ];
    first_list(given)
}

fn first_list(given: impl IntoIterator<Item = Option<String>>) -> Vec<String> {
    let lists = given.into_iter().flatten().map(|list| split(&list));
    lists
        .into_iter()
        .find(|list| !list.is_empty())
        .unwrap_or_else(|| NODES_DEFAULT.map(str::to_owned).to_vec())
}

/// Separated by commas or space.
fn split(list: &str) -> Vec<String> {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|node| !node.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        assert_eq!(size("123"), Ok(123));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        for wrong in ["", "M", "1.5G", "-1", "1X", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (word, ms) in [
            ("5", 5_000),
            ("0.25", 250),
            ("250ms", 250),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(word), Ok(Duration::from_millis(ms)), "{word}");
        }
        for word in [
            "", "s", "0", "0ms", "-1", "1y", "1 s", "1e3", "nan", "inf", "..",
        ] {
            assert!(duration(word).is_err(), "{word}");
        }
        assert_eq!(duration_or_zero("0ms"), Ok(Duration::ZERO));
        assert!(duration_or_zero("-1").is_err());
    }

    #[test]
    fn the_first_list_that_names_a_node_counts() {
        let some = |list: &str| Some(list.to_owned());
        assert_eq!(
            first_list([some("a:1,b:2 c:3,, "), some("d:4")]),
            ["a:1", "b:2", "c:3"]
        );
        assert_eq!(first_list([None, some(""), some("d:4\n")]), ["d:4"]);
        assert_eq!(first_list([None, some(" ,")]), NODES_DEFAULT);
    }
}
