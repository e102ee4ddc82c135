//! http
<<<<<<< HEAD

<<<<<<< HEAD
pub mod admin;
pub mod health;
=======
pub mod session;
>>>>>>> auth
=======
pub mod pages;
>>>>>>> web
