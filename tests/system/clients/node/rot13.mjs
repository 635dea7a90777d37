// The simulator's translation, and the texts that the programs have translated.
export const rot13 = (text) =>
  text.replace(/[a-z]/gi, (c) => {
    const base = c <= "Z" ? 65 : 97;
    return String.fromCharCode(((c.charCodeAt(0) - base + 13) % 26) + base);
  });
export const numberedTexts = (count) => Array.from({ length: count }, (_, i) => `This is text number ${i}`);
