//! A filter of system calls: the kernel itself says no, so what is tested meets a real refusal.

use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// For good, in this process and in all that come of it: these calls end in one way and all others in another, both of them
/// return values of a filter as seccomp(2) has them.
pub(crate) fn filter(calls: &[c_long], these: u32, others: u32) {
    let program = |code: u32, skipped: usize, k: u32| sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: u8::try_from(skipped).unwrap(),
        jf: 0,
        k,
    };
    let is = |(at, call): (usize, &c_long)| {
        let number = u32::try_from(*call).unwrap();
        program(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, calls.len() - at, number)
    };
    let mut filter = vec![program(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)]; // the number of the call
    filter.extend(calls.iter().enumerate().map(is));
    filter.push(program(libc::BPF_RET | libc::BPF_K, 0, others));
    filter.push(program(libc::BPF_RET | libc::BPF_K, 0, these));
    let length = u16::try_from(filter.len()).unwrap();
    let filter = sock_fprog { len: length, filter: filter.as_mut_ptr() };
    nix::sys::prctl::set_no_new_privs().unwrap();
    #[expect(unsafe_code, reason = "nix knows no filters of system calls")]
    // SAFETY: prctl(2) with PR_SET_SECCOMP and SECCOMP_MODE_FILTER asks for a pointer to a `sock_fprog` whose instructions
    // are readable during the call: both live to the end of this function.
    let result = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&filter))
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
