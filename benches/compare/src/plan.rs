//! The loads that are compared, each with a name for the tables.

use std::time::Duration;

use crate::load::Load;
use crate::systems::Keep;

pub const PUT: &str = "put";
pub const GET: &str = "get";
pub const HALF: &str = "half";
pub const PUT_LARGE: &str = "put of 10 kB";
pub const GET_LARGE: &str = "get of 10 kB";
pub const HALF_ZIPF: &str = "half, zipf";
pub const HOT: &str = "add to one key";
/// Short loads in which system calls are counted, which takes time of its own.
pub const COUNTED_PUT: &str = "put, counted";
pub const COUNTED_GET: &str = "get, counted";

pub const CLIENTS: [usize; 5] = [1, 16, 64, 256, 1_000];
const FEW_CLIENTS: [usize; 3] = [1, 64, 256];
const KEYS: u64 = 10_000;
const VALUE_SIZE: usize = 100;
const LARGE_VALUE_SIZE: usize = 10_000;
const WARMUP: Duration = Duration::from_secs(1);
/// The second of warm-up, the first puts of all keys, and some more.
pub const COUNT_AFTER: Duration = Duration::from_millis(2_500);
pub const COUNTED_DURATION: Duration = Duration::from_secs(4);

pub struct Planned {
    pub name: &'static str,
    pub load: Load,
}

impl Planned {
    pub fn is_counted(&self) -> bool {
        [COUNTED_PUT, COUNTED_GET].contains(&self.name)
    }
}

/// The loads with that durability, in order.
pub fn loads(keep: Keep, duration: Duration) -> Vec<Planned> {
    let load = |name: &'static str, clients: usize| {
        let value_size = match name {
            PUT_LARGE | GET_LARGE => LARGE_VALUE_SIZE,
            _ => VALUE_SIZE,
        };
        let is_counted = [COUNTED_PUT, COUNTED_GET].contains(&name);
        let load = Load {
            mix: match name {
                PUT | PUT_LARGE | COUNTED_PUT => [0, 1, 0],
                GET | GET_LARGE | COUNTED_GET => [1, 0, 0],
                HOT => [0, 0, 1],
                _ => [1, 1, 0],
            },
            clients,
            keys: if name == HOT { 1 } else { KEYS },
            is_zipf: name == HALF_ZIPF,
            value_size,
            warmup: WARMUP,
            duration: if is_counted {
                COUNTED_DURATION
            } else {
                duration
            },
        };
        Planned { name, load }
    };
    let each = |name, clients: &[usize]| -> Vec<Planned> {
        clients.iter().map(|clients| load(name, *clients)).collect()
    };
    match keep {
        Keep::Memory => [
            each(PUT, &CLIENTS),
            each(GET, &CLIENTS),
            each(HALF, &CLIENTS),
            each(HALF_ZIPF, &[64]),
            each(HOT, &[256]),
            each(COUNTED_PUT, &[1, 256]),
            each(COUNTED_GET, &[1, 256]),
            // The last ones: their values stay.
            each(PUT_LARGE, &[64]),
            each(GET_LARGE, &[64]),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Keep::Os => each(PUT, &FEW_CLIENTS),
        Keep::Fsync => [each(PUT, &CLIENTS), each(HALF, &[64])]
            .into_iter()
            .flatten()
            .collect(),
    }
}
