//! The account a service runs as: from what the configuration says to what the kernel wants.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, User, getgrouplist};

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// `None`: a number that has no entry.
    name: Option<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAccount {
    #[error("there is no user `{user}`")]
    Unknown { user: String },
    #[error("cannot look up user `{user}`: {source}")]
    LookUp { user: String, source: Errno },
}

impl Account {
    /// By name, or by number. A number needs no entry in the account database: its group is then the same number.
    pub(crate) fn find(user: &str) -> Result<Self, NoAccount> {
        let number = user.parse::<u32>().ok();
        let known = match number {
            Some(uid) => User::from_uid(uid.into()),
            None => User::from_name(user),
        }
        .map_err(|source| NoAccount::LookUp { user: user.to_owned(), source })?;
        match (known, number) {
            (Some(known), _) => {
                Ok(Self { uid: known.uid.as_raw(), gid: known.gid.as_raw(), name: Some(known.name) })
            }
            (None, Some(uid)) => Ok(Self { uid, gid: uid, name: None }),
            (None, None) => Err(NoAccount::Unknown { user: user.to_owned() }),
        }
    }

    /// All its groups, the first one included; none for a number that has no entry.
    pub(crate) fn groups(&self) -> Result<Vec<u32>, Errno> {
        let Some(name) = &self.name else { return Ok(Vec::new()) };
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let groups = getgrouplist(&name, Gid::from_raw(self.gid))?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_number() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Account::find("0").unwrap(), root);
        assert!(root.groups().unwrap().contains(&0));
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_does() {
        let nobody_has = Account::find("4123456789").unwrap();
        assert_eq!((nobody_has.uid, nobody_has.gid), (4_123_456_789, 4_123_456_789));
        assert_eq!(nobody_has.groups(), Ok(Vec::new()));
        assert!(matches!(Account::find("no-such-user"), Err(NoAccount::Unknown { .. })));
    }
}
