//! One file per kind of failure; `load` is the clients' load meanwhile, `graph` the links that
//! remain.

mod bounds;
mod graph;
mod load;
mod loss;
mod shapes;
mod splits;
