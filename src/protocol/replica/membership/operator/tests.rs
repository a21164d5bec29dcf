use super::*;

fn member(node: NodeId) -> Member {
    Member {
        node,
        incarnation: 100 + u64::from(node),
        address: format!("h{node}:7000"),
        ..Member::default()
    }
}

fn configuration(members: &[NodeId], away: &[NodeId]) -> Configuration {
    Configuration {
        cluster: 1,
        epoch: 4,
        members: members.iter().copied().map(member).collect(),
        away: away.iter().copied().map(member).collect(),
        ids: members.iter().chain(away).copied().max().unwrap_or(0),
        ..Configuration::default()
    }
}

fn ids(members: &[Member]) -> Vec<NodeId> {
    members.iter().map(|m| m.node).collect()
}

/// The ids of the desired members and of the desired non-members.
fn wanted(plan: Result<Plan, String>) -> (Vec<NodeId>, Vec<NodeId>) {
    match plan {
        Ok(Plan::Change(wanted, _)) => (ids(&wanted.members), ids(&wanted.away)),
        other => panic!("a change, not {other:?}"),
    }
}

fn set(nodes: &[NodeId]) -> Voting {
    Voting {
        nodes: nodes.iter().copied().collect(),
        ..Voting::default()
    }
}

/// The nodes that can vote, and those that are reachable but have hung disks.
fn set_with_hung(nodes: &[NodeId], hung: &[NodeId]) -> Voting {
    Voting {
        hung: hung.iter().copied().collect(),
        ..set(nodes)
    }
}

#[track_caller]
fn assert_refused(plan: Result<Plan, String>, part: &str) {
    match plan {
        Err(reason) => assert!(reason.contains(part), "{reason}"),
        Ok(plan) => panic!("{plan:?}"),
    }
}

fn add_to(c: &Configuration, address: &str) -> Result<Plan, String> {
    let change = Change::Add {
        address: address.to_owned(),
    };
    plan(c, &set(&[1, 2, 3, 4, 5]), &change)
}

fn replace_in(c: &Configuration, heard: &[NodeId], node: NodeId) -> Result<Plan, String> {
    let change = Change::Replace {
        node,
        address: "new:1".to_owned(),
    };
    plan(c, &set(heard), &change)
}

#[test]
fn a_new_node_gets_an_id_that_was_never_given_out() {
    let mut c = configuration(&[1, 2, 3], &[5]);
    c.ids = 7;
    let Ok(Plan::Change(wanted, 8)) = add_to(&c, "new:1") else {
        panic!("the next id");
    };
    assert_eq!((ids(&wanted.members), wanted.ids), (vec![1, 2, 3], 8));
    assert_eq!(ids(&wanted.away), [5, 8]);
    let new = wanted.away.last().unwrap();
    assert_eq!((new.incarnation, new.address.as_str()), (0, "new:1"));
    // A repeated request finds the node added, or waiting to be admitted.
    assert_eq!(add_to(&c, "h2:7000"), Ok(Plan::Done(2)));
    assert_eq!(add_to(&c, "h5:7000"), Ok(Plan::Waits(5)));
}

#[test]
fn what_can_not_be_added_is_refused() {
    let c = configuration(&[1, 2, 3], &[]);
    for address in ["host", ":7", "host:0", "host:70000", "host:x"] {
        assert_refused(add_to(&c, address), "is not HOST:PORT");
    }
    let full = configuration(&[1, 2, 3, 4, 5], &[6, 7, 8, 9]);
    assert_refused(add_to(&full, "new:1"), "9 nodes");
    let worn = Configuration { ids: 255, ..c };
    assert_refused(add_to(&worn, "new:1"), "255 ids");
}

#[test]
fn a_removed_node_is_named_no_more() {
    let c = configuration(&[1, 2, 3], &[4]);
    let heard = set(&[1, 2, 3]);
    let remove = |node| plan(&c, &heard, &Change::Remove { node });
    assert_eq!(wanted(remove(1)), (vec![2, 3], vec![4]));
    assert_eq!(wanted(remove(4)), (vec![1, 2, 3], vec![]));
    assert_refused(remove(5), "there is no node 5; the nodes are 1, 2, 3, 4");
    let gone = Configuration {
        ids: 5,
        ..c.clone()
    };
    let again = plan(&gone, &heard, &Change::Remove { node: 5 });
    assert_eq!(again, Ok(Plan::Done(5)));
    let alone = configuration(&[1], &[4]);
    let last = plan(&alone, &set(&[1, 4]), &Change::Remove { node: 1 });
    assert_refused(last, "the only member");
}

#[test]
fn what_would_leave_no_quorum_is_refused() {
    let c = configuration(&[1, 2, 3], &[]);
    let change = Change::Remove { node: 1 };
    assert_refused(plan(&c, &set(&[1, 3]), &change), "unreachable: h2:7000");
    // The next in order is the master of the two.
    assert_eq!(wanted(plan(&c, &set(&[1, 2]), &change)).0, [2, 3]);
}

#[test]
fn a_member_that_is_there_is_replaced_when_the_new_one_is_a_member() {
    let mut c = configuration(&[1, 2, 3], &[]);
    let all = [1, 2, 3, 4];
    assert_eq!(
        wanted(replace_in(&c, &all, 2)),
        (vec![1, 2, 3], vec![4]),
        "first the new one gets an id"
    );
    let mut new = member(4);
    new.address = "new:1".to_owned();
    c.ids = 4;
    c.away = vec![new.clone()];
    assert_eq!(replace_in(&c, &all, 2), Ok(Plan::Waits(4)));
    c.members.push(c.away.remove(0));
    assert_eq!(wanted(replace_in(&c, &all, 2)), (vec![1, 3, 4], vec![]));
    c.members.remove(1);
    assert_eq!(replace_in(&c, &all, 2), Ok(Plan::Done(4)));
}

#[test]
fn a_member_that_is_gone_is_replaced_at_once() {
    let c = configuration(&[1, 2, 3], &[5]);
    assert_eq!(wanted(replace_in(&c, &[1, 2], 3)), (vec![1, 2], vec![5, 6]));
    assert_eq!(
        wanted(replace_in(&c, &[1, 2, 3], 5)),
        (vec![1, 2, 3], vec![6]),
        "one without a vote too"
    );
    // The node was removed while the new node was catching up.
    let mut learning = configuration(&[1, 2, 3], &[]);
    let mut new = member(4);
    new.address = "new:1".to_owned();
    learning.away.push(new);
    learning.ids = 4;
    assert_eq!(
        wanted(replace_in(&learning, &[1, 2], 3)),
        (vec![1, 2], vec![4])
    );
}

#[test]
fn of_nine_the_old_goes_before_the_new_comes() {
    let nine: Vec<NodeId> = (1..=9).collect();
    let mut c = configuration(&nine, &[]);
    let Ok(Plan::Change(first, 0)) = replace_in(&c, &nine, 9) else {
        panic!("a step");
    };
    assert_eq!(
        (ids(&first.members), ids(&first.away)),
        (nine[..8].to_vec(), vec![])
    );
    c.members = first.members;
    assert_eq!(wanted(replace_in(&c, &nine, 9)).1, [10]);
}

#[test]
fn a_replacement_that_makes_no_sense_is_refused() {
    let c = configuration(&[1, 2, 3], &[]);
    assert_refused(replace_in(&c, &[1, 2, 3], 7), "there is no node 7");
    let own = Change::Replace {
        node: 2,
        address: "h2:7000".to_owned(),
    };
    assert_refused(plan(&c, &set(&[1, 2, 3]), &own), "of node 2 itself");
}

#[test]
fn the_master_role_goes_to_a_member_that_is_there() {
    let c = configuration(&[1, 2, 3], &[4]);
    let to = |node, heard: &[NodeId]| plan(&c, &set(heard), &Change::TransferMaster { node });
    assert_eq!(wanted(to(3, &[1, 2, 3])), (vec![3, 1, 2], vec![4]));
    assert_eq!(to(1, &[1, 2, 3]), Ok(Plan::Done(1)));
    assert_refused(to(3, &[1, 2]), "unreachable");
    assert_refused(to(4, &[1, 2, 3]), "not a member");
    assert_refused(to(9, &[1, 2, 3]), "there is no node 9");
}

#[test]
fn a_node_whose_disk_hangs_does_not_count_and_is_named() {
    let c = configuration(&[1, 2, 3], &[]);
    let heard = set_with_hung(&[2, 3], &[1]);
    assert_refused(
        plan(&c, &heard, &Change::Remove { node: 3 }),
        "with a hung disk",
    );
    let to_hung = plan(&c, &heard, &Change::TransferMaster { node: 1 });
    assert_eq!(to_hung, Ok(Plan::Done(1)), "it is the master as it is");
    let to_hung = plan(
        &c,
        &set_with_hung(&[1, 2], &[3]),
        &Change::TransferMaster { node: 3 },
    );
    assert_refused(to_hung, "the disk of node 3");
    let change = Change::Replace {
        node: 1,
        address: "new:1".to_owned(),
    };
    assert_eq!(
        wanted(plan(&c, &heard, &change)),
        (vec![2, 3], vec![4]),
        "at once"
    );
}
