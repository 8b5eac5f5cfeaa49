//! What the running system tells: metrics and traces as a collector receives them, against what the database says.

mod cardinality;
mod counters;
mod late;
mod leader;
mod logs;
mod names;
mod outage;
mod proof;
mod python;
mod receiver;
mod rig;
mod samples;
mod traces;
