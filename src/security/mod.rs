//! Placeholder of the command's restrictions.

use crate::error::StepFailure;
use crate::plan::ExecStep;

/// What is taken from the command.
#[derive(Debug)]
pub struct Restrictions {}

impl Restrictions {
    /// Compiles the filter.
    pub fn prepare(_exec: &ExecStep) -> Result<Self, StepFailure> {
        Ok(Self {})
    }

    /// Before the ids change.
    pub fn before_setuid(&self) -> Result<(), StepFailure> {
        Ok(())
    }

    /// After the ids have changed.
    pub fn after_setuid(&self) -> Result<(), StepFailure> {
        Ok(())
    }
}
