//! http

<<<<<<< HEAD
pub mod admin;
pub mod health;
=======
pub mod session;
>>>>>>> auth
