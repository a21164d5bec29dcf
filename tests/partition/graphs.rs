//! Every shape of connected graph: one graph of each isomorphism class.

/// Links between nodes counted from 0; in each pair the lower node comes first.
pub type Graph = Vec<(usize, usize)>;

/// In order of the number of links.
pub fn connected_shapes(nodes: usize) -> Vec<Graph> {
    let pairs = all_pairs(nodes);
    let orders = orders(nodes);
    let mut shapes: Vec<u32> = (0..1_u32 << pairs.len())
        .filter(|graph| is_connected(nodes, &pairs, *graph))
        .filter(|graph| orders.iter().all(|o| renamed(&pairs, *graph, o) >= *graph))
        .collect();
    shapes.sort_by_key(|graph| (graph.count_ones(), *graph));
    // The known numbers: sequence A001349.
    let expected = [1, 1, 1, 2, 6, 21].get(nodes);
    assert!(expected.is_none_or(|count| *count == shapes.len()));
    let links = |graph| links_of(&pairs, graph).collect();
    shapes.into_iter().map(links).collect()
}

fn all_pairs(nodes: usize) -> Graph {
    let lower = 0..nodes;
    lower
        .flat_map(|low| (low + 1..nodes).map(move |high| (low, high)))
        .collect()
}

fn links_of(pairs: &Graph, graph: u32) -> impl Iterator<Item = (usize, usize)> {
    let numbered = pairs.iter().enumerate();
    numbered
        .filter(move |(bit, _)| graph >> bit & 1 == 1)
        .map(|(_, link)| *link)
}

fn is_connected(nodes: usize, pairs: &Graph, graph: u32) -> bool {
    let mut reached = 1_u32;
    for _ in 0..nodes {
        for (low, high) in links_of(pairs, graph) {
            if reached >> low & 1 == 1 || reached >> high & 1 == 1 {
                reached |= 1 << low | 1 << high;
            }
        }
    }
    reached.count_ones() as usize == nodes
}

fn renamed(pairs: &Graph, graph: u32, order: &[usize]) -> u32 {
    let mut renamed = 0;
    for (low, high) in links_of(pairs, graph) {
        let (one, two) = (order[low], order[high]);
        let link = (one.min(two), one.max(two));
        let bit = pairs.iter().position(|pair| *pair == link);
        renamed |= 1 << bit.expect("all pairs are there");
    }
    renamed
}

fn orders(nodes: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..nodes {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                let free = (0..nodes).filter(|n| !order.contains(n));
                let longer = free.map(|n| order.iter().copied().chain([n]).collect());
                longer.collect::<Vec<_>>()
            })
            .collect();
    }
    orders
}
