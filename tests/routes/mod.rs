//! A file for each kind of trouble; `load` is what clients do meanwhile, `graph` which links are left.

mod bounds;
mod graph;
mod load;
mod loss;
mod shapes;
mod splits;
