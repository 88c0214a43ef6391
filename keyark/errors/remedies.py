"""What to do about each error, in a sentence or two. docs/protocol.md and ``KeyarkError.remedy`` show it."""

from __future__ import annotations

from typing import Final

TELL_AND_REPEAT: Final = (
    "Keep the request and tell the operator. Send the same request again when the cause is gone."
)

MESSAGE_SAYS: Final = "Do what the message says."
"""Of errors that no service answers with: each sentence has its way out."""

REMEDIES: Final = {
    # Any call
    "INTERNAL": "Report a bug, with the traceback.",
    "INVALID_INPUT": "Correct the field that the error names, and send a new request.",
    "CONFIGURATION": "Correct the file or setting that the message names.",
    "UNAUTHENTICATED": "Connect with TLS 1.3 and an identity that is in force. Renew it if it has expired.",
    "PERMISSION_DENIED": "Use an identity whose role may do this.",
    "NOT_FOUND": "Check the id. If it is that of an enrollment, send the request again.",
    "UNKNOWN_METHOD": "Check the address, and that client and service are of the same release.",
    "OVERLOADED": "Wait as long as `RetryInfo` says, then send the same request again.",
    "UNAVAILABLE": "Send the same request again a little later.",
    "DEADLINE_EXCEEDED": "Send the same request again. The enrollment goes on where it stopped.",
    "POLICY_REJECTED": "Change what the violations name, and send a new request.",
    "REMOTE": "Update the client. The service sent a reason that this release does not know.",
    "INTERNAL_ERROR": (
        "Tell the operator the `error_id`, under which the service's log has the cause. Then "
        "send the same request again."
    ),
    "UNREAD_MESSAGE": "Send one message of at most 4 MiB in each call.",
    "MESSAGE_TOO_LARGE": "Send fewer or smaller items in one call.",
    # Connections and identities
    "NO_CONNECTION": (
        "Check that the service runs at the address in the message, then send the same request again."
    ),
    "SERVICE_CERTIFICATE": (
        "Check the address and the clocks. If the certificate has ended, the service's operator renews it."
    ),
    "IDENTITY_ENDED": "Renew the identity with `keyark identities renew`.",
    "IDENTITY_NOT_YET_VALID": "Set the clock of the calling computer.",
    "SERVICE_REVOKED": "Ask the service's operator to give it a new identity.",
    "IDENTITY_REVOKED": "Request a new identity with a new key.",
    "IDENTITY_LIST": "Replace the file with the current revoked-identities.crl of the authority.",
    "OLDER_IDENTITY_LIST": "Replace the file with the newest revoked-identities.crl of the authority.",
    # Requests and their keys
    "UNSUPPORTED_KEY": "Make another key whose type, size and curve fit the role.",
    "SPKI_NOT_CANONICAL": "Encode the public key as section 4 of docs/protocol.md describes.",
    "WEAK_KEY": "Make new keys.",
    "CALL_SIGNATURE": (
        "Sign the call's bytes with the identity key, in the context of section 5 of docs/protocol.md."
    ),
    "CALL_MISMATCH": (
        "Sign a call that names this caller, this deployment, and the statements in the order "
        "in which they are sent."
    ),
    "CALL_TIME": "Set the clock, sign a new call, and send the same statement in it.",
    "CALLER_SIGNATURE_REQUIRED": "Sign the call.",
    "STATEMENT_SIGNATURE": (
        "Sign exactly the bytes that are sent with the signing key, in the context of section "
        "5 of docs/protocol.md."
    ),
    "RENEWAL_SIGNATURE": "Sign the renewal with the key of the certificate that it names.",
    "RENEWAL_ON_HOLD": "Ask an officer to release the certificate.",
    "RENEWAL_REFUSED": "Enroll anew.",
    "ALREADY_RENEWED": "Renew the certificate that replaced it.",
    "WRONG_TRUST_DOMAIN": "Make a statement for the trust domain that the form names.",
    "REQUEST_ID_REUSED": "Make a new request id.",
    "PUBLIC_KEY_IN_USE": "Make new keys.",
    "KEY_ROLE_CONFLICT": "Make new keys, one for each role.",
    "UNKNOWN_PROFILE": "Fetch the form again, and name a profile that exists.",
    "KEY_TYPE_NOT_PERMITTED": "Make a key of a type that the form names.",
    "ARCHIVAL_FORBIDDEN": "Send no wrapped key.",
    "RECEIPT_REQUIRED": "Send the same statement with a wrapped key.",
    "LINKED_ELSEWHERE": "Tell the operator: `keyark doctor` shows the key and both certificates.",
    "TOO_MANY_HOLDERS": "Choose another common name, or ask the operator to change the rule on names.",
    "ENVELOPE": "Wrap the key for the same statement again. The service does not say which check failed.",
    "UNKNOWN_TRANSPORT_KEY": "Fetch the form again, and wrap to the key that it offers.",
    "INVALID_PRIVATE_KEY": "Encode the private key as section 7 of docs/protocol.md describes.",
    "ML_KEM_SEED_REQUIRED": "Encode the ML-KEM key as its seed.",
    "KEY_MISMATCH": "Make two new key pairs.",
    "KEY_PAIR_REFUSED": "Make two new key pairs.",
    "POISONED_ITEM": "Do not send it again. Tell the operator.",
    # Answers that the client did not believe
    "UNEXPECTED_ANSWER": "Do not trust the answer. Tell the operator of the service.",
    "CERTIFICATE_MISMATCH": "Do not trust the answer. Tell the operator of the RM.",
    "PRIVATE_LOG": (
        "Approve nothing. Tell the operators of RM and CM that the DRM shows a log that they do not follow."
    ),
    "LOG_MISMATCH": "Tell an auditor that the log differs from what was seen before.",
    "RECEIPT_TIME": "Do not trust the receipt unless its log proves it. Ask an auditor.",
    "RECEIPT_INVALID": "Do not trust the receipt. Ask the operator for another one.",
    "CHECKPOINT_INVALID": "Do not trust the checkpoint. Tell an auditor.",
    "CONSISTENCY_PROOF_INVALID": "Do not trust the log. Tell an auditor.",
    # What officers decide
    "PENDING_APPROVAL": "Wait until an officer has decided, then submit the same request again.",
    "ENROLLMENT_REJECTED": "Read the officer's reason, and submit a new request.",
    "ENROLLMENT_CANCELED": "Enroll anew.",
    "ENROLLMENT_EXPIRED": "Submit a new request, and ask an officer to decide in time.",
    "NOT_PENDING": "Show the request again. It was decided, or it has expired.",
    "REQUEST_CHANGED": "Show the request again, and decide on it.",
    "ASSIGNED_ELSEWHERE": "Have the request assigned to you, or leave it to the officer who has it.",
    "SEPARATION_OF_DUTIES": "Let another officer decide.",
    "TOO_MANY_WAITING": "Submit it again when officers have decided on some of your requests.",
    "APPROVAL_SIGNATURE": "Sign the approval with the key of the officer that it names.",
    "APPROVAL_MISMATCH": "Show the request again, and sign a new approval.",
    "APPROVAL_TIME": "Set the clocks.",
    # Certificates
    "ALREADY_REVOKED": (
        "Nothing is left to do. Only the reason `KEY_COMPROMISE` can still replace the recorded one."
    ),
    "ALREADY_EXPIRED": "Nothing is left to do. Revocation lists do not name expired certificates.",
    "NOT_ON_HOLD": "Nothing is left to do. The certificate is not suspended.",
    "CRLS_NOT_CONFIGURED": "Ask the CM's operator to add a section `[crl]` to its configuration.",
    "REVOCATION_SIGNATURE": "Sign with the signing key of the pair that the first serial number belongs to.",
    "CERTIFICATE_FORMAT": "Replace the certificate. It cannot be parsed.",
    "CERTIFICATE_CHAIN": "Replace the certificate with one whose chain ends at the trust anchor.",
    "CERTIFICATE_EXPIRED": "Renew the certificate, or the one above it.",
    "CERTIFICATE_NOT_YET_VALID": "Set the clocks.",
    "ISSUER_VALIDITY": "Get a new CA certificate for the CM: `keyark ca request`.",
    "ISSUER_NOT_YET_VALID": "Set the CM's clock.",
    # Ceremonies
    "CEREMONY_SIGNATURE": "Sign with the key of the agent that the request or decision names.",
    "DECISION_MISMATCH": "Show the ceremony again, and decide again.",
    "CEREMONY_CLOSED": "Show the ceremony. Metadata `state` has its state.",
    "CEREMONY_EXPIRED": "Ask again with a new request.",
    "CEREMONY_CANCELED": "If the keys are still needed, ask again with a new request.",
    "CEREMONY_REJECTED": "Ask the agents for their reason, then ask again with a new request.",
    "CEREMONY_MOVED": "Show the ceremony again, and decide again.",
    "CEREMONY_MISMATCH": "Do not approve, and tell the operator of the DRM.",
    "CHANGE_PENDING": "Wait until the change that you approved was carried out or ended.",
    "ANOTHER_CEREMONY": "End the other ceremony first.",
    "AGENT_QUOTA": "End some of your ceremonies, or try again in the next hour.",
    "RECOVERED_KEYS_LOST": "Cancel the recovery, and ask again with a new request.",
    "REQUESTER_LEFT": "Let an agent who still holds a share ask with a new request.",
    "OWN_REQUEST": "Let another agent decide.",
    "NO_SHARE": "Let an agent do it who holds a share of the newest storage key.",
    "ALREADY_DECIDED": "Nothing is left to do. The first decision stands.",
    "WRONG_SHARE": "Use the share of the agent in metadata `agent`.",
    "SHARE_KEY": "Sign the share key with the agent's certificate key: `keyark identities install`.",
    "FORMER_SHARE_KEY": "Have that agent make a new share key: `keyark identities request`, then `install`.",
    "QUORUM": "Choose a quorum that can be reached and needs a second person.",
    "QUORUM_NOT_REACHED": "Have more agents approve.",
    "TOKEN": "Ask the operator to restore the storage key's token.",
    "SEAL": "Check that this is the key to which it was sealed.",
    "KEY_UNCERTIFIED": "Run `keyark doctor`. The DRM knows no certificate for the key.",
    "KEY_DEACTIVATED": "Activate the key first: `keyark keys activate`.",
    "KEY_INTEGRITY": TELL_AND_REPEAT,
    "NOTHING_TO_RESEAL": "Compare with `keyark storage-key list`.",
    "UNKNOWN_CHANGE": (
        "Ask the operator whether the DRM was restored from a backup. If so, pin again: `keyark agents pin`."
    ),
    "TRUST_CHANGE": (
        "Ask the operator to examine the DRM's log. No quorum of trusted agents approved the change."
    ),
    "AMBIGUOUS_ID": "Give more digits of the id.",
    "AMBIGUOUS_OWNER": "Name the person by e-mail address.",
    "OWNER_MISMATCH": "Tell the archive's operator. Name the key by its id instead.",
    "RECIPIENT_KEY_MISSING": (
        "Collect in the home in which the recovery was requested, or ask again with a new request."
    ),
    "PINS_MISSING": "Pin the agents first: `keyark agents pin`.",
    "PINS_BEHIND": (
        "Try once more. If it fails again, approve nothing and compare `keyark agents pins` with the "
        "other agents."
    ),
    "ARCHIVE_CHANGE": "Approve nothing, and examine the DRM's log. No quorum approved this change.",
    # What a service cannot do now
    "WITNESS_QUOTA": "Try again in the next hour.",
    "WORKER_START": "Try again, and tell the operator.",
    "WORKER_DIED": "Send the same request again.",
    "LOG_CLOSED": "Send the same request again. The service is stopping or starting.",
    "STORE_CLOSED": "Send the same request again. The service is stopping or starting.",
    "STORE_FULL": (
        "Tell the operator that a disk is full. Wait as long as `RetryInfo` says, then send the same "
        "request again."
    ),
    "WORKER_FAILED": TELL_AND_REPEAT,
    "SIGNING_MISMATCH": TELL_AND_REPEAT,
    "STORE": TELL_AND_REPEAT,
    "STORE_CORRUPT": "Tell the operator to restore a backup.",
    "LOG_CORRUPT": "Tell the operator to restore a backup.",
    "LOG_INCONSISTENT": "Tell the operator. Nothing is issued until the alarm is cleared.",
    "CHECKPOINT_GAP": "Send checkpoint links that begin at the tree size in metadata `tree_size`.",
    "CHECKPOINT_MISMATCH": "Send the consistency proof for the accepted tree (metadata `tree_size`).",
    "CHECKPOINT_STALE": "Fetch the receipt again, under a newer checkpoint.",
    "TREE_SIZE": TELL_AND_REPEAT,
    "CHECKPOINT_FORMAT": TELL_AND_REPEAT,
    "CHECKPOINT_ORIGIN": TELL_AND_REPEAT,
    "CHECKPOINT_SIGNATURE": "Fetch the form again. If that does not help, tell the operator.",
    "CHECKPOINT_KEY": TELL_AND_REPEAT,
    "RECEIPT_FORMAT": TELL_AND_REPEAT,
    "RECEIPT_MISMATCH": TELL_AND_REPEAT,
    "INCLUSION_PROOF_INVALID": TELL_AND_REPEAT,
    "AUDIT_EVENT_INVALID": TELL_AND_REPEAT,
    "UNKNOWN_STORAGE_KEY": "Ask the operator to add the DRM's storage key to those that CM and RM trust.",
    "ARCHIVE_RESTORED": "Try again later. The operator must first put a new transport key in force.",
    "ARCHIVE_ANSWER": TELL_AND_REPEAT,
    "TRANSPORT_CERTIFICATE": "Send no key; tell the operator of the DRM.",
    "TRANSPORT_KEY_UNPROVEN": "Send no key; tell the operator of the DRM.",
    "TRANSPORT_KEY_RETIRED": "Fetch the form again. Send no key to a retired transport key.",
    "TRANSPORT_KEY_ENDED": "Ask the operator to renew or rotate the transport key.",
    # Files of one's own
    "UNWRITABLE_FILE": "Free some disk space, or grant access to the folder.",
    "UNREADABLE_FILE": "Grant access to the file, or name another one.",
    "FILE_EXISTS": "Name another file. Existing files are not overwritten.",
    "FOLDER_IN_USE": "Wait for the other command to end, or choose another folder.",
    "FOREIGN_OWNER": "Change the owner of the file or folder, or choose another one.",
    "LAX_PERMISSIONS": "Let only the owner read it (`chmod go=`), or choose another file or folder.",
    "KEY_FILE": "Name a file with a private key in PEM.",
    "PASSWORD_REQUIRED": "Give the password of the key.",
    "WRONG_PASSWORD": "Give the correct password of the key.",
    "PASSWORD_FILE": "Correct the password file.",
    "WEAK_PASSWORD": "Choose a longer password.",
    "FOLDER_TAKEN": "Choose a new folder. Files that belong to something else are not replaced.",
    "OTHER_FORM": "Use the same options as the first time, or choose another folder.",
    "OTHER_REQUEST": (
        "Choose another folder. If the request in this one was refused, you can delete it instead."
    ),
    "USER_LIST": "Correct the line that the message names.",
}
