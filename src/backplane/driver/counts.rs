//! What the driver does, counted.

use std::time::Duration;

use crate::backplane::contract::{Failed, Renewal};
use crate::backplane::cursor::Heard;
use crate::backplane::driver::Driver;
use crate::hub::room::shared::{Repaired, Told};

impl Driver {
    pub(super) fn heard(&self, heard: Option<Heard>) {
        let _ = heard;
    }

    pub(super) fn told(&self, told: Told) {
        let _ = told;
    }

    pub(super) fn repaired(&self, repaired: Option<Repaired>) {
        let _ = repaired;
    }

    pub(super) fn audited(&self, audited: Result<usize, &Failed>, took: Duration) {
        let _ = (audited, took);
    }

    pub(super) fn renewed(&self, renewal: Option<&Renewal>) {
        let _ = renewal;
    }
}
