//! Users and groups, by name or number, as the system knows them.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use saola_observability::Choice;
use saola_supervisor::{Identity, Owner};

use crate::settings::value::Values;

/// Who workers and observer are to be.
pub(crate) fn identity(values: &mut Values<'_>, run_dir: &Choice) -> Option<Identity> {
    let group = group(values, "group");
    let Some(user) = user(values, "user") else {
        let uid = Uid::effective().as_raw();
        return group.map(|gid| Identity { uid, gid, groups: vec![gid] });
    };
    if run_dir.given.is_none() && run_dir.runtime_directory.is_none() {
        values.refuse("user", "needs a run_dir: the default one lets no other user in");
    }
    let gid = group.unwrap_or(user.gid.as_raw());
    let name = std::ffi::CString::new(user.name).ok();
    let groups = name.and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok());
    let groups = groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    Some(Identity { uid: user.uid.as_raw(), gid, groups })
}

/// Who owns unix sockets.
pub(crate) fn socket_owner(values: &mut Values<'_>) -> Owner {
    let uid = user(values, "socket_user").map(|user| user.uid.as_raw());
    Owner { uid, gid: group(values, "socket_group") }
}

fn user(values: &mut Values<'_>, name: &str) -> Option<User> {
    let text = values.text(name)?;
    let found = match text.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(&text),
    };
    let found = found.ok().flatten();
    if found.is_none() {
        values.refuse(name, "is no user of this system");
    }
    found
}

fn group(values: &mut Values<'_>, name: &str) -> Option<u32> {
    let text = values.text(name)?;
    let found = match text.parse() {
        Ok(number) => Some(number),
        Err(_) => Group::from_name(&text).ok().flatten().map(|group| group.gid.as_raw()),
    };
    if found.is_none() {
        values.refuse(name, "is no group of this system");
    }
    found
}
