//! Tests the simulator's own parts: its disk, network, queue and clocks work as documented, and a
//! seed gives the same run each time.

#[path = "simulator/seeds.rs"]
mod seeds;
mod sim;

mod disk {
    use horseshoe::protocol::types::message::{Group, GroupNumber, Recovered};
    use horseshoe::protocol::types::record::{AcceptorState, Key};

    use horseshoe::protocol::types::ballot::Ballot;

    use crate::sim::disk::{Disk, Table};

    fn group(number: GroupNumber, promised: u64) -> Group {
        let state = AcceptorState {
            promised: Ballot(promised),
            ..AcceptorState::default()
        };
        Group {
            number,
            registers: vec![(Key::user(b"k"), state)],
            ..Group::default()
        }
    }

    fn promised(table: &Table) -> Option<u64> {
        table.registers.get(&Key::user(b"k")).map(|s| s.promised.0)
    }

    #[test]
    fn a_crash_loses_what_was_not_synced() {
        let mut disk = Disk::new(1);
        assert!(disk.write(group(1, 10)));
        assert!(!disk.write(group(2, 20)), "one sync at a time");
        assert_eq!(disk.load(&Key::user(b"k")).unwrap().promised, Ballot(20));
        assert_eq!(
            disk.end_sync(),
            (1, true),
            "covers what was there when it began"
        );
        disk.crash(0);
        assert_eq!(promised(disk.synced()), Some(10));
        assert_eq!(disk.load(&Key::user(b"k")).unwrap().promised, Ballot(10));
        assert_eq!(
            (disk.recovered().group, disk.recovered().incarnation),
            (1, 1)
        );
    }

    #[test]
    fn a_crash_may_leave_some_of_it() {
        let mut disk = Disk::new(1);
        for number in 1..=3 {
            disk.write(group(number, number * 10));
        }
        disk.crash(2);
        assert_eq!(
            (promised(disk.synced()), disk.recovered().group),
            (Some(20), 2)
        );
        assert!(
            disk.write(group(3, 33)),
            "numbers go on from the last one found"
        );
    }

    #[test]
    fn one_sync_covers_all_that_waits() {
        let mut disk = Disk::new(1);
        for number in 1..=4 {
            disk.write(group(number, number));
        }
        assert_eq!(disk.end_sync(), (1, true));
        assert_eq!(disk.end_sync(), (4, false));
        assert_eq!(disk.unsynced(), 0);
    }

    #[test]
    fn marks_are_of_the_accepted_ballot() {
        let mut disk = Disk::new(1);
        let state = AcceptorState {
            accepted: Ballot(5),
            ..AcceptorState::default()
        };
        let key = Key::user(b"k");
        let registers = vec![(key.clone(), state)];
        disk.write(Group {
            number: 1,
            registers,
            ..Group::default()
        });
        let mark = |number, ballot| Group {
            number,
            chosen: vec![(key.clone(), Ballot(ballot))],
            ..Group::default()
        };
        disk.write(mark(2, 4));
        assert!(!disk.load(&key).unwrap().chosen);
        disk.write(mark(3, 5));
        assert!(disk.load(&key).unwrap().chosen);
    }

    #[test]
    fn a_wiped_disk_is_another_incarnation() {
        let mut disk = Disk::new(1);
        disk.write(group(1, 10));
        disk.wipe(2);
        assert_eq!(
            disk.recovered(),
            Recovered {
                incarnation: 2,
                ..Recovered::default()
            }
        );
    }
}

mod event {
    use crate::sim::event::{Event, Queue};

    #[test]
    fn events_come_in_order_of_time_then_of_making() {
        let mut queue = Queue::default();
        for (at, number) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            queue.push(at, Event::Plan(number));
        }
        assert_eq!(queue.next_us(), Some(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|(_, event)| match event {
                Event::Plan(number) => number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [2, 4, 1, 3]);
    }
}

mod network {
    use crate::sim::network::{Network, Place, Quality, between};
    use crate::sim::random::Random;

    const A: Place = Place::Node(0);
    const B: Place = Place::Node(1);

    fn network(quality: Quality) -> Network {
        Network::new(Random::new(7), quality)
    }

    #[test]
    fn a_calm_network_delivers_once() {
        let mut network = network(Quality::CALM);
        assert_eq!(network.send(A, B), [Some(200), None]);
    }

    #[test]
    fn a_cut_is_one_way_and_counted() {
        let mut network = network(Quality::CALM);
        network.cut(&[(A, B)]);
        network.cut(&between(&[A], &[B]));
        assert_eq!(network.send(A, B), [None, None]);
        assert_eq!(network.send(B, A), [None, None]);
        network.mend(&between(&[A], &[B]));
        assert_eq!(network.send(B, A), [Some(200), None]);
        assert_eq!(network.send(A, B), [None, None]);
        network.heal();
        assert_eq!(network.send(A, B), [Some(200), None]);
    }

    #[test]
    fn losses_and_doubles_are_about_as_many_as_set() {
        let bad = Quality {
            lost_per_mille: 300,
            doubled_per_mille: 200,
            ..Quality::CALM
        };
        let mut network = network(bad);
        let sent: Vec<_> = (0..10_000).map(|_| network.send(A, B)).collect();
        let lost = sent.iter().filter(|s| s[0].is_none()).count();
        let doubled = sent.iter().filter(|s| s[1].is_some()).count();
        assert!((2_800..3_200).contains(&lost), "{lost}");
        assert!((1_250..1_550).contains(&doubled), "{doubled}");
    }

    #[test]
    fn a_burst_ends() {
        let mut network = network(Quality::CALM);
        network.begin_burst(
            1,
            Quality {
                lost_per_mille: 1_000,
                ..Quality::CALM
            },
        );
        assert_eq!(network.send(A, B), [None, None]);
        network.end_burst(1);
        assert_eq!(network.send(A, B), [Some(200), None]);
    }
}

mod node {
    use horseshoe::protocol::types::limits;
    use horseshoe::protocol::types::message::Output;
    use horseshoe::protocol::{Options, Tuning};

    use crate::sim::node::{EPOCH_MS, Node, WallClock};
    use crate::sim::random::Random;

    #[test]
    fn the_wall_clock_has_offset_and_drift() {
        let wall = WallClock {
            offset_ms: -500,
            drift_ppm: 1_000,
        };
        assert_eq!(wall.shows_ms(0), EPOCH_MS - 500);
        assert_eq!(wall.shows_ms(10_000_000), EPOCH_MS - 500 + 10_010);
    }

    #[test]
    fn a_node_runs_from_start_to_crash() {
        let mut node = Node::new(0, 7);
        let options = Options {
            list: vec!["node0:1".into()],
            index: 0,
            boot: 1,
            seed: 1,
            skew_max_ms: 60_000,
            insecure_admin: true,
            value_size_max: wire::VALUE_SIZE_DEFAULT,
            keys_cached_max: 10,
            cache_size_max: 64 << 20,
            heartbeat_ms: limits::HEARTBEAT_MS_DEFAULT,
            link_down_ms: limits::LINK_DOWN_MS_DEFAULT,
            shrink_after_ms: 0,
            disk_hung_ms: limits::DISK_HUNG_MS_DEFAULT,
            cluster_name: String::new(),
            bootstrap: false,
            tuning: Tuning::default(),
        };
        node.start(1_000, options, &mut Random::new(1));
        let outputs = node.run(1_000, true);
        assert!(
            outputs.iter().any(|o| matches!(o, Output::Persist(_))),
            "{outputs:?}"
        );
        assert!(node.timer_us().is_some_and(|at| at >= 1_000));
        let life = node.life;
        node.crash(0);
        assert!(!node.is_up() && node.life > life && node.timer_us().is_none());
    }
}

mod runs {
    use crate::sim::plan::Config;
    use crate::sim::run::run_seed;

    #[test]
    fn a_seed_is_the_same_run_each_time() {
        for seed in 1..=12 {
            let first = run_seed(seed, &Config::default());
            assert_eq!(first, run_seed(seed, &Config::default()), "seed {seed}");
            assert!(first.is_ok(), "seed {seed}: {first:?}");
        }
    }

    #[test]
    fn runs_are_full_of_operations_and_trouble() {
        for seed in 1..=12 {
            let report = run_seed(seed, &Config::default()).expect("it is right");
            assert!(report.operations >= 200, "{report:?}");
            assert!(report.faults.values().sum::<u64>() >= 5, "{report:?}");
        }
    }
}
