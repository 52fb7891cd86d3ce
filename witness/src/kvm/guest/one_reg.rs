//! Registers of a vCPU one by one, on architectures that give each an id.

use crate::kvm::{Errno, Vcpu};
use crate::refusal::Refused;

/// Sets the register of an id.
pub(super) fn set_one_reg(vcpu: &Vcpu, id: u64, value: u64) -> Result<(), Refused> {
    let set = vcpu.fd().set_one_reg(id, &value.to_le_bytes());
    set.map(|_| ())
        .map_err(|error| refused("KVM_SET_ONE_REG", error))
}

/// The register of an id.
pub(super) fn get_one_reg(vcpu: &Vcpu, id: u64) -> Result<u64, Refused> {
    let mut value = [0; 8];
    let got = vcpu.fd().get_one_reg(id, &mut value);
    got.map_err(|error| refused("KVM_GET_ONE_REG", error))?;
    Ok(u64::from_le_bytes(value))
}

fn refused(call: &str, error: kvm_ioctls::Error) -> Refused {
    Refused(format!("{call} failed with {}", Errno::from(error)))
}
