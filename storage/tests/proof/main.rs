//! What the store promises, against a disk that cuts, rots, fails, reorders and loses power.
//!
//! The job under test keeps a map; its model remembers the map at every epoch. Whatever happens to the disk, a store that opens again
//! holds exactly the map of some committed epoch, at least as new as the last acknowledged one.

mod damage;
mod document;
mod faults;
mod files;
mod power;
mod rig;
mod torn;
