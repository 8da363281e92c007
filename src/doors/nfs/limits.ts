/** Bounds of the NFS door, each with its reason. */

/** Largest READ and WRITE (FSINFO rtmax, wtmax): what Linux clients ask for at most. */
export const maxTransferBytes = 1 << 20;

/** Largest record: a WRITE with the longest credential, handle and head. */
export const maxRecordBytes = maxTransferBytes + 4096;

/** Linux and libnfs send one fragment; whoever sends many tiny ones wants to see what they cost. */
export const maxFragments = 64;

/** RFC 5531: the body of a credential or verifier. */
export const maxAuthBytes = 400;

/** RFC 5531, appendix A: authsys_parms. */
export const maxMachineNameBytes = 255;
export const maxGroups = 16;
