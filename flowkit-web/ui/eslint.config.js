import js from '@eslint/js'
import hooks from 'eslint-plugin-react-hooks'
import { defineConfig, globalIgnores } from 'eslint/config'
import typescript from 'typescript-eslint'

export default defineConfig(
  globalIgnores(['src/api/schema.d.ts']),
  js.configs.recommended,
  typescript.configs.strict,
  hooks.configs.flat.recommended,
  {
    ignores: ['src/api/json.ts'],
    rules: {
      'no-restricted-syntax': ['error', {
        selector: 'MemberExpression[object.name="JSON"], CallExpression[callee.property.name="json"]',
        message: 'This changes large integers. Use parseJson and jsonText of api/json.',
      }],
    },
  },
  // The page is not compiled with the React Compiler, which this rule is about.
  { rules: { 'react-hooks/incompatible-library': 'off' } },
)
