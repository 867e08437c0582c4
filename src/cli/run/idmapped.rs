//! Volumes with `idmap`, which this process makes for init.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::error::Error;
use crate::fs::idmapped;
use crate::ns::holder;
use crate::ns::idmap::Maps;
use crate::plan::{Plan, Step};

/// The volumes whose ids are mapped, by where they are to be.
pub(super) fn mounts(plan: &Plan) -> Result<Vec<(PathBuf, OwnedFd)>, Error> {
    let mut mounts = Vec::new();
    let mut user_namespace = None;
    for step in &plan.steps {
        let Step::Bind {
            source,
            target,
            flags,
            idmap: true,
            ..
        } = step
        else {
            continue;
        };
        let user_namespace = match &user_namespace {
            Some(made) => made,
            None => user_namespace.insert(holder::user_namespace(&Maps {
                uid: plan.uid_map.clone(),
                gid: plan.gid_map.clone(),
            })?),
        };
        let mount = idmapped::copy(source, *flags, user_namespace.as_fd())?;
        mounts.push((target.clone(), mount));
    }
    Ok(mounts)
}
