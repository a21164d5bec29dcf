//! The storage thread: it takes groups and reports up to which one they are durable.
//!
//! The store may block, so the loop never calls it. The thread takes all groups that are queued and
//! commits them together: one sync covers as many as arrived during the last one.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Notice;
use super::observation::CommitFigures;
use super::sync_times::SyncTimes;
use crate::protocol::types::counts::{DURATION_BOUNDS_US, Distribution};
use crate::protocol::types::message::{Group, GroupNumber};
use crate::storage::{Space, Storage, StorageError};

/// How often the store is tended while there are no commits.
const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Upper bounds of the buckets of groups per commit.
const GROUPS_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

enum DiskWork {
    Commit(Box<Group>),
    Close,
}

/// The loop's handle of the storage thread.
#[derive(Debug)]
pub struct Disk {
    work: Sender<DiskWork>,
    /// The last group that is durable, once the first one was committed.
    durable: Option<GroupNumber>,
    sync_times: SyncTimes,
    durations_us: Distribution,
    groups_per_commit: Distribution,
    space: Space,
}

impl Disk {
    pub fn start(
        storage: Box<dyn Storage>,
        notices: UnboundedSender<Notice>,
    ) -> std::io::Result<Self> {
        let (work, queue) = channel();
        std::thread::Builder::new()
            .name("storage".to_owned())
            .spawn(move || run(storage, &queue, &notices))?;
        Ok(Disk {
            work,
            durable: None,
            sync_times: SyncTimes::default(),
            durations_us: Distribution::new(DURATION_BOUNDS_US),
            groups_per_commit: Distribution::new(GROUPS_BOUNDS),
            space: Space::default(),
        })
    }

    pub fn commit(&mut self, group: Group) {
        self.durable.get_or_insert(group.number - 1);
        // If the thread is gone, a driver event that says so is queued.
        let _ = self.work.send(DiskWork::Commit(group.into()));
    }

    pub fn sync_times(&self) -> &SyncTimes {
        &self.sync_times
    }

    pub fn space(&self) -> Space {
        self.space
    }

    pub fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// Records that this group and all before it are durable, by a commit that took this long.
    pub fn persisted(&mut self, group: GroupNumber, took: Duration) {
        self.sync_times.add(took);
        self.durations_us.add(took.as_micros() as u64);
        let before = self.durable.replace(group);
        let before = before.expect("it was committed first");
        self.groups_per_commit.add(group - before);
    }

    pub fn figures(&self) -> CommitFigures {
        CommitFigures {
            durations_us: self.durations_us.clone(),
            groups: self.groups_per_commit.clone(),
        }
    }

    /// Tells the thread to commit what is queued and to close the store; a driver event reports the
    /// end.
    pub fn close(&mut self) {
        let _ = self.work.send(DiskWork::Close);
    }
}

/// Reports to the loop if the thread ends by a panic, so that the loop does not wait forever.
struct Guard<'a> {
    notices: &'a UnboundedSender<Notice>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.notices.send(Notice::StoragePanicked);
        }
    }
}

fn run(storage: Box<dyn Storage>, queue: &Receiver<DiskWork>, notices: &UnboundedSender<Notice>) {
    let _guard = Guard { notices };
    let notice = match commit_until_closed(storage, queue, notices) {
        Ok(Some(storage)) => Notice::StorageClosed(storage.close()),
        // The loop ended without requesting a clean end.
        Ok(None) => return,
        Err(error) => Notice::StorageFailed(error),
    };
    let _ = notices.send(notice);
}

/// What was last reported to the loop about the disk's space.
#[derive(Default)]
struct SpaceReport(Option<(Space, Instant)>);

impl SpaceReport {
    fn send_news(&mut self, space: Option<Space>, notices: &UnboundedSender<Notice>) {
        let Some(space) = space else { return };
        let is_news = self.0.is_none_or(|(reported, at)| {
            reported.is_full != space.is_full
                || (reported != space && at.elapsed() >= TEND_INTERVAL)
        });
        if is_news {
            self.0 = Some((space, Instant::now()));
            let _ = notices.send(Notice::Space(space));
        }
    }
}

/// Commits groups until the store is to be closed, then returns the store.
fn commit_until_closed(
    mut storage: Box<dyn Storage>,
    queue: &Receiver<DiskWork>,
    notices: &UnboundedSender<Notice>,
) -> Result<Option<Box<dyn Storage>>, StorageError> {
    let mut groups = Vec::new();
    let mut reported = SpaceReport::default();
    loop {
        let first = match queue.recv_timeout(TEND_INTERVAL) {
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            first => first.ok(),
        };
        let mut close = false;
        for work in first.into_iter().chain(queue.try_iter()) {
            match work {
                DiskWork::Commit(group) => groups.push(*group),
                DiskWork::Close => close = true,
            }
        }
        if let Some(last) = groups.last().map(|group| group.number) {
            let began = Instant::now();
            storage.commit(&groups)?;
            groups.clear();
            let _ = notices.send(Notice::Persisted(last, began.elapsed()));
        }
        if close {
            return Ok(Some(storage));
        }
        storage.tend()?;
        reported.send_news(storage.space(), notices);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::message::GroupNumber;
    use std::sync::{Arc, Barrier};
    use tokio::sync::mpsc::unbounded_channel;

    /// A store whose first commit waits for the test, and that reports the groups of each commit.
    struct Slow {
        barrier: Arc<Barrier>,
        commits: Sender<Vec<GroupNumber>>,
    }

    impl Storage for Slow {
        fn commit(&mut self, groups: &[Group]) -> Result<(), StorageError> {
            let numbers: Vec<GroupNumber> = groups.iter().map(|group| group.number).collect();
            if numbers[0] == 1 {
                self.barrier.wait();
                self.barrier.wait();
            }
            self.commits.send(numbers).expect("the test listens");
            Ok(())
        }

        fn close(self: Box<Self>) -> Result<(), StorageError> {
            Ok(())
        }
    }

    fn group(number: GroupNumber) -> Group {
        Group {
            number,
            ..Group::default()
        }
    }

    #[test]
    fn what_queues_during_a_commit_is_the_next_commit() {
        let barrier = Arc::new(Barrier::new(2));
        let (commits, committed) = channel();
        let store = Slow {
            barrier: barrier.clone(),
            commits,
        };
        let (notifier, mut notices) = unbounded_channel();
        let mut disk = Disk::start(Box::new(store), notifier).unwrap();
        disk.commit(group(1));
        barrier.wait();
        (2..=9).for_each(|number| disk.commit(group(number)));
        disk.close();
        barrier.wait();
        let all: Vec<_> = committed.iter().collect();
        assert_eq!(all, [vec![1], (2..=9).collect()]);
        let expected = [1, 9];
        for number in expected {
            match notices.blocking_recv() {
                Some(Notice::Persisted(group, _)) => assert_eq!(group, number),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            notices.blocking_recv(),
            Some(Notice::StorageClosed(Ok(())))
        ));
    }

    /// A store that fails once it is tended.
    struct Failing;

    impl Storage for Failing {
        fn commit(&mut self, _groups: &[Group]) -> Result<(), StorageError> {
            Ok(())
        }

        fn tend(&mut self) -> Result<(), StorageError> {
            let path = "store".into();
            Err(StorageError::Stopped { path })
        }

        fn close(self: Box<Self>) -> Result<(), StorageError> {
            Ok(())
        }
    }

    #[test]
    fn a_store_is_tended_without_commits_too_and_what_fails_then_is_told() {
        let (notifier, mut notices) = unbounded_channel();
        let _disk = Disk::start(Box::new(Failing), notifier).unwrap();
        let notice = notices.blocking_recv();
        assert!(matches!(notice, Some(Notice::StorageFailed(_))));
    }
}
