// Enrolls one person with a keyark RM, from the protos and docs/protocol.md; section numbers are those of the document.
//
//   node enroll.mjs PROTOS HOME RM_ADDRESS IDENTITY NAME EMAIL OUT
//   node enroll.mjs protos deployment 127.0.0.1:7710 client/enroller "Alice Example" alice@example.org alice
//
// Both keys are P-256, and the transport key has to be P-256 as well (suite 1).

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [protos, home, address, identity, name, email, out] = process.argv.slice(2);
const read = (...parts) => fs.readFileSync(path.join(home, ...parts));
const pems = (file) => file.toString().match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g);
const sha256 = (...parts) => crypto.createHash("sha256").update(Buffer.concat(parts)).digest();
const spkiOf = (key) => key.export({ type: "spki", format: "der" });
const number = (value, bytes) => Buffer.from(value.toString(16).padStart(bytes * 2, "0"), "hex");
const require_ = (condition, what) => {
  if (!condition) throw new Error(`refused: ${what}`);
};

// Section 3: contexts, and the wire format of protocol buffers, whose canonical form is easiest written by hand.

const sized = (part) => Buffer.concat([number(part.length, 4), part]);
const context = (label, ...parts) => Buffer.concat([Buffer.from(label), ...parts].map(sized));
const varint = (value) => {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
};
const field = (tag, value) => {
  if (typeof value === "number") return Buffer.concat([varint(tag * 8), varint(value)]);
  const bytes = Buffer.from(value);
  return Buffer.concat([varint(tag * 8 + 2), varint(bytes.length), bytes]);
};
const message = (...values) => Buffer.concat(values.map((value, index) => field(index + 1, value)));
const fields = (bytes) => {
  const found = {};
  let at = 0;
  const next = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      require_(byte !== undefined, "message");
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const tag = next();
    let value = next();
    if (tag & 7) {
      require_((tag & 7) === 2 && at + value <= bytes.length, "message");
      value = bytes.subarray(at, (at += value));
    }
    found[Math.floor(tag / 8)] = value;
  }
  return found;
};

// Section 7, suite 1: HPKE base mode (RFC 9180), DHKEM(P-256, HKDF-SHA-256), HKDF-SHA-256, AES-256-GCM.

const hmac = (key, ...parts) => crypto.createHmac("sha256", key).update(Buffer.concat(parts)).digest();
const empty = Buffer.alloc(0);
const labeled = (suite) => ({
  extract: (salt, label, secret) => hmac(salt, Buffer.from("HPKE-v1"), suite, Buffer.from(label), secret),
  expand: (key, label, info, length) =>  // one block of HKDF is enough for 32 bytes
    hmac(key, number(length, 2), Buffer.from("HPKE-v1"), suite, Buffer.from(label), info, Buffer.from([1])).subarray(0, length),
});
const point = (key) => spkiOf(key).subarray(-65);

function hpkeSeal(plaintext, recipient, info) {
  const ephemeral = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
  const enc = point(ephemeral.publicKey);
  const kem = labeled(Buffer.from("KEM\x00\x10", "latin1"));
  const dh = crypto.diffieHellman({ privateKey: ephemeral.privateKey, publicKey: recipient });
  const prk = kem.extract(empty, "eae_prk", dh);
  const shared = kem.expand(prk, "shared_secret", Buffer.concat([enc, point(recipient)]), 32);
  const hpke = labeled(Buffer.from("HPKE\x00\x10\x00\x01\x00\x02", "latin1"));
  const hashes = [hpke.extract(empty, "psk_id_hash", empty), hpke.extract(empty, "info_hash", info)];
  const schedule = Buffer.concat([Buffer.from([0]), ...hashes]);
  const secret = hpke.extract(shared, "secret", empty);
  const key = hpke.expand(secret, "key", schedule, 32);
  const cipher = crypto.createCipheriv("aes-256-gcm", key, hpke.expand(secret, "base_nonce", schedule, 12));
  return Buffer.concat([enc, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

// Sections 6 and 9: certificates. node:crypto shows neither keyUsage bits nor critical extensions; a client for daily
// use checks these too, with a parser of X.509.

function checkPath(certificate, chain, anchor) {
  const path_ = [certificate];
  while (!path_.at(-1).checkIssued(anchor)) {
    const issuer = chain.find((each) => each.ca && path_.at(-1).checkIssued(each) && !path_.includes(each));
    require_(issuer && path_.length < 9, "no path leads to the trust anchor");
    path_.push(issuer);
  }
  path_.push(anchor);
  path_.forEach((each, index) => {
    require_(new Date(each.validFrom) <= new Date() && new Date() <= new Date(each.validTo), "not in force");
    if (index) require_(each.ca && path_[index - 1].verify(each.publicKey), "a signature of the path");
  });
}

function transportKey(offered) {
  const certificate = new crypto.X509Certificate(offered.certificate);
  const chain = offered.chain.map((der) => new crypto.X509Certificate(der));
  checkPath(certificate, chain, new crypto.X509Certificate(read("trust-anchor.pem")));
  require_(certificate.subjectAltName === `URI:spiffe://${domain}/drm/transport`, "not the transport certificate");
  const tls = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"];
  require_(certificate.keyUsage?.length && !certificate.keyUsage.some((use) => tls.includes(use)), "for TLS");
  require_(certificate.publicKey.asymmetricKeyDetails.namedCurve === "prime256v1", "no P-256 key");
  const known = new crypto.X509Certificate(read("transport.pem"));
  require_(spkiOf(known.publicKey).equals(spkiOf(certificate.publicKey)), "not the transport key in force");
  return certificate.publicKey;
}

function checkCertificates(pair, keys) {
  const anchor = new crypto.X509Certificate(pems(read("ca.pem")).at(-1));
  const chain = pair.chain.map((der) => new crypto.X509Certificate(der));
  return [pair.signing_certificate, pair.encryption_certificate].map((der, index) => {
    const certificate = new crypto.X509Certificate(der);
    checkPath(certificate, chain, anchor);
    require_(spkiOf(certificate.publicKey).equals(keys[index]), "a certificate is for another key");
    require_(certificate.subject === `CN=${name}` && certificate.subjectAltName === `email:${email}`, "another name");
    require_(!certificate.ca, "a certificate is a CA's");
    return certificate.serialNumber.toLowerCase();
  });
}

// Section 8: the receipt.

const unbase64 = (text) => {
  const bytes = Buffer.from(text, "base64");
  require_(bytes.toString("base64") === text, "base64");
  return bytes;
};

function verifyReceipt(file, transport, expected) {
  const text = file.toString();
  const [head, ...rest] = text.split("\n\n");
  const [header, extra, index, ...siblings] = head.split("\n");
  require_(header === "c2sp.org/tlog-proof@v1" && extra.startsWith("extra ") && index.startsWith("index "), "header");
  const { 1: leaf, 2: salt, 3: details } = fields(unbase64(extra.slice(6)));
  const event = fields(leaf);
  require_(event[1] === 1 && event[2] === 3, "entry"); // version 1, KEY_ARCHIVED
  require_(salt.length === 16 && sha256(salt, details).equals(event[13]), "details");
  require_(rest.length === 2, "checkpoint");
  const body = `${rest[0]}\n`;
  const [origin, size, root] = rest[0].split("\n");
  require_(origin === `${domain}/drm`, "origin");
  const keyId = sha256(spkiOf(transport)).subarray(0, 4);
  const signatures = rest[1].trimEnd().split("\n").map((line) => line.split(" "));
  const mine = signatures.filter((words) => words[0] === "\u2014" && words[1] === origin)
    .map((words) => unbase64(words[2])).filter((signature) => signature.subarray(0, 4).equals(keyId));
  require_(mine.length === 1, "signer");
  require_(crypto.verify("sha256", Buffer.from(body), transport, mine[0].subarray(4)), "signature");
  let at = BigInt(index.slice(6)), last = BigInt(size) - 1n, node = sha256(Buffer.from([0]), leaf);
  require_(at >= 0n && at <= last, "index");
  for (const sibling of siblings.map(unbase64)) {
    require_(last > 0n && sibling.length === 32, "proof");
    if (at & 1n || at === last) {
      node = sha256(Buffer.from([1]), sibling, node);
      while (!(at & 1n) && at) [at, last] = [at >> 1n, last >> 1n];
    } else node = sha256(Buffer.from([1]), node, sibling);
    [at, last] = [at >> 1n, last >> 1n];
  }
  require_(last === 0n && node.equals(unbase64(root)), "inclusion");
  const owner = fields(details);
  [4, 5, 6, 7].forEach((tag, n) => require_(event[tag].equals(expected.event[n]), `event ${tag}`));
  [1, 2, 3].forEach((tag, n) => require_(owner[tag].toString() === expected.owner[n], `owner ${tag}`));
}

// Sections 1, 2, 4 and 5: the calls.

const files = { anchor: read("trust-anchor.pem"), key: read("identities", identity, "key.pem"), certificate: read("identities", identity, "cert.pem") };
const own = new crypto.X509Certificate(files.certificate);
const caller = own.subjectAltName.replace(/^URI:/, "");
const domain = caller.split("/")[2];
const definition = loader.loadSync("keyark/v1/registration.proto", { includeDirs: [protos], keepCase: true, enums: String, defaults: true, arrays: true });
const { RegistrationService } = grpc.loadPackageDefinition(definition).keyark.v1;
const client = new RegistrationService(address, grpc.credentials.createSsl(files.anchor, files.key, files.certificate), {
  "grpc.ssl_target_name_override": `rm.${domain}`,
  "grpc.default_authority": `rm.${domain}`,
});
const call = (method, request) => new Promise((resolve, reject) => {
  const options = { deadline: Date.now() + 60_000 };
  client[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
});

function save(file, data) {
  fs.writeFileSync(path.join(out, file), data, { mode: 0o600, flag: "wx", flush: true });
}

async function main() {
  const { form } = await call("GetEnrollmentForm", { profile: "user" });
  const transport = transportKey(form.transport_certificate);
  const signing = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
  const encryption = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
  const keys = [spkiOf(signing.publicKey), spkiOf(encryption.publicKey)];
  const requestId = Buffer.concat([number(Date.now(), 6), crypto.randomBytes(10)]); // a UUIDv7
  requestId[6] = (requestId[6] & 15) | 0x70;
  requestId[8] = (requestId[8] & 63) | 0x80;
  const statement = message(1, domain, caller, requestId, form.profile, name, email, ...keys);

  fs.mkdirSync(out, { mode: 0o700 }); // everything is on disk before anything is sent
  const privateKey = encryption.privateKey.export({ type: "pkcs8", format: "der" });
  save("signing-key.pem", signing.privateKey.export({ type: "pkcs8", format: "pem" }));
  save("encryption-key.pem", encryption.privateKey.export({ type: "pkcs8", format: "pem" }));
  save("statement.bin", statement);
  save("transport.der", form.transport_certificate.certificate);

  const keyId = sha256(spkiOf(transport));
  const info = context("keyark/v1/transport-envelope", keyId, sha256(statement));
  const stated = Buffer.concat([field(1, 1), field(2, domain), field(3, caller), field(4, Math.floor(Date.now() / 1000)), field(5, sha256(statement))]);
  const { outcomes } = await call("SubmitEnrollments", {
    items: [{
      statement,
      signature: crypto.sign("sha256", context("keyark/v1/enrollment-statement", statement), signing.privateKey),
      wrapped_private_key: message(1, keyId, hpkeSeal(privateKey, transport, info)),
    }],
    call: {
      statement: stated,
      signature: crypto.sign("sha256", context("keyark/v1/enrollment-call", stated), files.key),
      certificate: own.raw,
    },
  });
  const { enrollment, error } = outcomes[0];
  if (error) throw new Error(error.message);
  require_(enrollment.state === "ENROLLMENT_STATE_ISSUED", enrollment.state);
  const serials = checkCertificates(enrollment.certificates, keys);
  const enrollmentId = Buffer.concat([requestId, sha256(Buffer.from(caller)).subarray(0, 16)]);
  verifyReceipt(enrollment.receipt, transport, {
    event: [enrollmentId, sha256(statement), sha256(keys[0]), sha256(keys[1])],
    owner: [caller, name, email],
  });
  save("receipt.tlog-proof", enrollment.receipt);
  console.log(JSON.stringify({ enrollment_id: enrollmentId.toString("hex"), serials, key_id: sha256(keys[1]).toString("hex") }));
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
}).finally(() => client.close());
