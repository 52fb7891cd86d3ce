//! The historical bugs and the mutations: each is found, and is gone when it is switched off.

mod corpus;
mod exhaustive;
mod refused;
mod shown;
mod traces;
